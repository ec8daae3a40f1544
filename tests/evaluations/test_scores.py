"""Scores get into the lake once, with their rollups, whoever else scores and wherever it was cut off."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import Rollups
from watchkeeper.record import Origin, Record
from watchkeeper_evaluations.scorer import Scores
from watchkeeper_evaluations.scores import score_window
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))


class Constant:
    """0.9 for everything. `before`: done before it answers."""

    name, version, source, columns, scores = "constant", "1", "a test", ("prompt_text",), ()

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.before = before

    def score(self, batch: pa.Table) -> Sequence[Scores]:
        before, self.before = self.before, lambda: None
        before()
        return [{"constant": 0.9}] * batch.num_rows


class Cut(Lake):
    """Dies when a rollup is to be written."""

    def append(self, table: str, rows: pa.Table, **options: Any) -> bool:
        if table == "rollups":
            raise KeyboardInterrupt
        return super().append(table, rows, **options)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def fill(lake: Lake, numbers: range, source: Origin = "gateway") -> None:
    times = [NOON + timedelta(seconds=7 * number) for number in numbers]
    lake.append(
        "interactions",
        to_arrow(
            [
                Record(
                    request_id=f"{number:032x}", received_at=microseconds(at), prompt_text=f"text {number}", source=source
                )
                for number, at in zip(numbers, times, strict=True)
            ]
        ),
    )


def run(lake: Lake, scorer: Constant | None = None, *, page: int = 4, version: int | None = None, name: str = "e") -> int:
    return score_window(
        lake, scorer or Constant(), WINDOW, evaluation_id=name, clock=lambda: NOON, version=version, page=page
    )


def counts(lake: Lake) -> tuple[int, int, int]:
    """Rows of scores, requests scored, scores in the rollups."""
    found = lake.query("SELECT count(*) AS rows, count(DISTINCT request_id) AS ids FROM scores").to_pylist()[0]
    rollups = Rollups.read(lake, WINDOW.start, WINDOW.end)
    return found["rows"], found["ids"], int(rollups.score_counts("constant").sum())


def test_a_window_larger_than_a_page_is_scored_whole_and_only_once(lake: Lake) -> None:
    fill(lake, range(10))
    assert run(lake) == 10
    assert run(lake) == 0
    assert counts(lake) == (10, 10, 10)


def test_what_arrives_late_is_scored_by_the_next_evaluation(lake: Lake) -> None:
    fill(lake, range(5, 10))
    before = lake.version("interactions")
    fill(lake, range(5))
    assert run(lake, version=before) == 5
    assert run(lake) == 5
    assert counts(lake) == (10, 10, 10)


def test_rows_outside_and_replays_are_left_alone(lake: Lake) -> None:
    fill(lake, range(3))
    fill(lake, range(3, 6), source="replay")
    fill(lake, range(600, 603))
    assert run(lake) == 3


def test_cut_off_between_scores_and_rollup_the_next_one_makes_up_for_it(lake: Lake, tmp_path: Path) -> None:
    fill(lake, range(10))
    with pytest.raises(KeyboardInterrupt):
        run(Cut(str(tmp_path / "lake")), name="first")
    assert counts(lake) == (4, 4, 0)
    assert run(lake, name="second") == 6
    assert counts(lake) == (10, 10, 10)


def test_two_evaluations_at_once_write_each_score_once(lake: Lake) -> None:
    """The other one runs from beginning to end while the first is thinking about its first page."""
    fill(lake, range(10))
    others: list[int] = []
    assert run(lake, Constant(lambda: others.append(run(lake, name="other"))), name="mine") == 0
    assert others == [10]
    assert counts(lake) == (10, 10, 10)


def test_two_evaluations_share_the_pages_that_the_other_has_not_written(lake: Lake) -> None:
    fill(lake, range(10))
    before = lake.version("interactions")
    fill(lake, range(10, 15))
    others: list[int] = []
    scorer = Constant(lambda: others.append(run(lake, version=before, name="other")))
    assert run(lake, scorer, name="mine") + others[0] == 15
    assert counts(lake) == (15, 15, 15)


def test_another_version_scores_again(lake: Lake) -> None:
    fill(lake, range(3))
    run(lake)
    newer = Constant()
    newer.version = "2"
    assert run(lake, newer) == 3
