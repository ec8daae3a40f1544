"""What a scorer is, and how it is run so that one bad row costs one row.

A scorer is a name, a version and one method. What it gives carries its meaning: a number is a score, a str a label, a bool
an assertion, None says that there was nothing to score. Knows nothing of windows, lakes or verdicts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import pyarrow as pa

from watchkeeper.lake.interactions import Kind, Time, score_rows
from watchkeeper.lake.tables import SCORES

Value = float | str | bool | None
Scores = Mapping[str, Value]
"""What a scorer says of one row: name → value. A name that is not there gets no row."""

ERROR_LENGTH: Final = 300


@dataclass(frozen=True)
class Score:
    """What a score of this name means. `low`, `high`: its range, both ends in it; an assertion counts as 0 or 1. `better`:
    which way is good; None: neither. A value from `flag_from` up or below `flag_below` is for a person to look at."""

    name: str
    kind: Kind = "score"
    low: float = 0.0
    high: float = 1.0
    better: Literal["higher", "lower"] | None = None
    flag_from: float | None = None
    flag_below: float | None = None

    def flags(self, value: float) -> bool:
        above = self.flag_from is not None and value >= self.flag_from
        return above or (self.flag_below is not None and value < self.flag_below)


class Scorer(Protocol):
    """`version` changes whenever scores would: rows are scored once by each scorer@version. `source`: what does the
    scoring, in words. `columns`: those of `interactions` that `score` reads. `scores`: what it may say; further names
    are details."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def columns(self) -> Sequence[str]: ...
    @property
    def scores(self) -> Sequence[Score]: ...

    def score(self, batch: pa.Table) -> Sequence[Scores]:
        """One mapping a row of `batch`, in its order. May raise: then the rows are given again one by one."""
        ...


def identity(scorer: Scorer) -> str:
    """name@version."""
    return f"{scorer.name}@{scorer.version}"


class ScorerBroken(Exception):
    """Not one row of several could be scored, so that the fault is not the rows'. The message is one line."""


class ScorerUnavailable(Exception):
    """A scorer raises it when something that it needs is away, whatever the rows are. The message is one line."""


@dataclass(frozen=True)
class _Failed:
    error: str


def score(scorer: Scorer, batch: pa.Table, *, scored_at: Time, evaluation_id: str, replay: bool = False) -> pa.Table:
    """Rows of `interactions` → rows of `scores`: at least one for each, with `error` where it could not be scored.

    Raises `ScorerBroken` when two or more rows were given and none could be scored, and lets a `ScorerUnavailable` through:
    those rows stay unscored, so that they are not given up for good because of a model that could not run today.
    """
    answers = _answers(scorer, batch)
    failed = [answer for answer in answers if isinstance(answer, _Failed)]
    if len(failed) == len(answers) > 1:
        raise ScorerBroken(f"{identity(scorer)} could score none of {len(failed)} rows: {failed[0].error}")
    by_name: dict[str, list[tuple[int, Value, str | None]]] = {}
    for row, answer in enumerate(answers):
        if isinstance(answer, _Failed):
            by_name.setdefault(scorer.name, []).append((row, None, answer.error))
            continue
        for name, value in (answer or {scorer.name: None}).items():
            by_name.setdefault(name, []).append((row, *_checked(value)))
    tables = []
    for name, entries in by_name.items():
        rows, values, errors = zip(*entries, strict=True)
        tables.append(
            score_rows(
                batch.take(pa.array(rows)),
                name,
                values,
                scorer=scorer.name,
                scorer_version=scorer.version,
                scored_at=scored_at,
                evaluation_id=evaluation_id,
                replay=replay,
                errors=errors,
            )
        )
    return pa.concat_tables(tables) if tables else SCORES.empty_table()


def _answers(scorer: Scorer, batch: pa.Table) -> list[Scores | _Failed]:
    """All at once; when that fails, each row alone."""
    whole = _answer(scorer, batch)
    if not isinstance(whole, _Failed):
        return whole
    if batch.num_rows == 1:
        return [whole]
    answers: list[Scores | _Failed] = []
    for row in range(batch.num_rows):
        one = _answer(scorer, batch.slice(row, 1))
        answers.extend([one] if isinstance(one, _Failed) else one)
    return answers


def _answer(scorer: Scorer, batch: pa.Table) -> list[Scores | _Failed] | _Failed:
    # Any exception: whatever a scorer trips over must not take the other rows with it.
    try:
        answers = list(scorer.score(batch))
    except ScorerUnavailable:
        raise
    except Exception as error:
        return _Failed(" ".join(f"{type(error).__name__}: {error}".split())[:ERROR_LENGTH])
    if len(answers) != batch.num_rows:
        return _Failed(f"the scorer gave {len(answers)} answers for {batch.num_rows} rows")
    return [*answers]


def _checked(value: Value) -> tuple[Value, str | None]:
    if isinstance(value, float) and not math.isfinite(value):
        return None, f"the score is {value}"
    return value, None
