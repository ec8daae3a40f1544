"""Scores get into the lake once, with their rollups, whoever else scores and wherever it was cut off."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import Rollups
from watchkeeper.record import Origin, Record
from watchkeeper_evaluations.scorer import ScorerUnavailable, Scores
from watchkeeper_evaluations.scores import score_window
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))


class Constant:
    """0.9 for everything. `before`: done before it answers. `given`: how many rows it got, each time."""

    version, source, columns, scores = "1", "a test", ("prompt_text",), ()

    def __init__(self, before: Callable[[], object] = lambda: None, name: str = "constant") -> None:
        self.before = before
        self.name = name
        self.given: list[int] = []

    def score(self, batch: pa.Table) -> Sequence[Scores]:
        before, self.before = self.before, lambda: None
        before()
        self.given.append(batch.num_rows)
        return [{self.name: 0.9}] * batch.num_rows


class Away(Constant):
    """Needs something that is not there."""

    def score(self, batch: pa.Table) -> Sequence[Scores]:
        raise ScorerUnavailable(f"{self.name} is away")


class Cut(Lake):
    """Does something before a rollup is written; left to itself, it dies."""

    def __init__(self, uri: str, instead: Callable[[], object] | None = None) -> None:
        super().__init__(uri)
        self.instead = instead

    def append_together(self, table: str, rows: pa.Table, versions: Mapping[str, int]) -> bool:
        if table == "rollups":
            if self.instead is None:
                raise KeyboardInterrupt
            self.instead()
        return super().append_together(table, rows, versions)


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


def run(lake: Lake, *scorers: Constant, page: int = 4, version: int | None = None, name: str = "e") -> int:
    chosen = scorers or (Constant(),)
    return score_window(lake, chosen, WINDOW, evaluation_id=name, clock=lambda: NOON, version=version, page=page)


def counts(lake: Lake, name: str = "constant") -> tuple[int, int, int]:
    """Rows of scores of a name, requests scored, scores in the rollups."""
    sql = "SELECT count(*) AS rows, count(DISTINCT request_id) AS ids FROM scores WHERE name = $name"
    found = lake.query(sql, {"name": name}).to_pylist()[0]
    rollups = Rollups.read(lake, WINDOW.start, WINDOW.end)
    return found["rows"], found["ids"], int(rollups.score_counts(name).sum())


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


def several() -> tuple[Constant, Constant, Constant]:
    return Constant(name="a"), Constant(name="b"), Constant(name="c")


def commits(lake: Lake) -> tuple[int, int]:
    """How many were made to `scores` and `rollups`, the making of the tables included."""
    return (lake.version("scores") or 0) + 1, (lake.version("rollups") or 0) + 1


def test_several_scorers_write_a_page_in_one_commit(lake: Lake) -> None:
    fill(lake, range(10))
    run(lake, Constant(), page=10)
    before = commits(lake)
    assert run(lake, *several(), page=5) == 10
    after = commits(lake)
    assert (after[0] - before[0], after[1] - before[1]) == (2, 2)
    assert {counts(lake, name) for name in "abc"} == {(10, 10, 10)}


def test_each_scorer_gets_the_rows_that_lack_its_score(lake: Lake) -> None:
    fill(lake, range(6))
    a, b, c = several()
    run(lake, a, page=10)
    fill(lake, range(6, 8))
    assert run(lake, a, b, page=10) == 8
    assert (a.given, b.given) == ([6, 2], [8])
    assert run(lake, a, b, page=10) == 0
    assert run(lake, a, b, c, page=10) == 8
    assert {counts(lake, name) for name in "abc"} == {(8, 8, 8)}


def test_one_that_is_away_holds_up_no_other_and_its_rows_stay(lake: Lake) -> None:
    fill(lake, range(10))
    a, _, c = several()
    with pytest.raises(ScorerUnavailable, match="b is away"):
        run(lake, a, Away(name="b"), c)
    assert [counts(lake, name) for name in "abc"] == [(10, 10, 10), (0, 0, 0), (10, 10, 10)]
    assert run(lake, *several()) == 10
    assert {counts(lake, name) for name in "abc"} == {(10, 10, 10)}


def test_cut_off_with_several_scorers_each_makes_up_for_its_own(lake: Lake, tmp_path: Path) -> None:
    fill(lake, range(6))
    with pytest.raises(KeyboardInterrupt):
        run(Cut(str(tmp_path / "lake")), *several(), name="first")
    assert {counts(lake, name) for name in "abc"} == {(4, 4, 0)}
    a, b, c = several()
    assert run(lake, b, name="second") == 2
    assert [counts(lake, name) for name in "abc"] == [(4, 4, 0), (6, 6, 6), (4, 4, 0)]
    assert run(lake, a, b, c, name="third") == 2
    assert {counts(lake, name) for name in "abc"} == {(6, 6, 6)}


def test_another_one_that_makes_up_for_a_part_takes_nothing_from_the_rest(lake: Lake, tmp_path: Path) -> None:
    """Between the scores and the rollup of a page, somebody who knows one of its scorers comes along."""
    fill(lake, range(10))
    others: list[int] = []
    slow = Cut(str(tmp_path / "lake"), lambda: others.append(run(lake, Constant(name="b"), name="other")))
    assert run(slow, *several(), name="mine") == 10
    assert others[0] == 6
    assert {counts(lake, name) for name in "abc"} == {(10, 10, 10)}


def test_two_at_once_that_share_a_scorer_write_each_score_once(lake: Lake) -> None:
    fill(lake, range(10))
    others: list[int] = []
    a, b, c = several()
    a.before = lambda: others.append(run(lake, Constant(name="b"), Constant(name="d"), name="other"))
    assert run(lake, a, b, c, name="mine") == 10
    assert others == [10]
    assert {counts(lake, name) for name in "abcd"} == {(10, 10, 10)}


def test_without_scorers_nothing_happens(lake: Lake) -> None:
    fill(lake, range(3))
    assert score_window(lake, (), WINDOW, evaluation_id="e", clock=lambda: NOON, version=None) == 0
    assert lake.version("scores") is None
