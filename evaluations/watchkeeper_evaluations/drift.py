"""The drift job: whether the requests of a window differ from those of a reference by more than chance.

What is compared, a column each: numbers by the Kolmogorov-Smirnov distance, categories by total variation, prompts and
answers by how well their words (for prompts, their embeddings too) tell the window they are from (two_sample.py).

The rule, which does not read p values of single rows:

1. Rows come in units: those of a user, or of a session where there are fewer than enough users, belong together. Chance is
   measured by shuffling units between the windows, never rows.
2. All columns share the permutations. A column has drifted when its adjusted p (of *any* column looking this unlikely) is
   below `ALPHA` and its distance reaches `FLOOR`: with many rows, what is certain may still not matter.
3. Fail when a column has drifted by `FAR` or more; warn when all drifts are smaller, or are of `LOAD` columns, whose rows
   are not independent even between units (a busy minute slows everyone), so that their p is too small.

Evidently writes the report, with these numbers in it (drift_report.py). Knows nothing of why something drifted.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from watchkeeper.settings import Settings
from watchkeeper_evaluations import drift_report
from watchkeeper_evaluations.case import Case, Finding, Verdict, bounds, during, inside
from watchkeeper_evaluations.scorer import Scorer
from watchkeeper_evaluations.scorers.toxicity import NAME as TOXICITY
from watchkeeper_evaluations.scorers.toxicity import OUTPUT, PROMPT
from watchkeeper_evaluations.two_sample import (
    TIMES,
    Distances,
    Shift,
    Sides,
    judged,
    ks,
    telling,
    telling_words,
    variation,
)
from watchkeeper_evaluations.window import Window

Kind = Literal["number", "category", "text"]

ALPHA: Final = 0.02
"""One window in fifty may be flagged by chance: a false alarm every two days where the job runs every hour."""

FLOOR: Final[Mapping[Kind, float]] = {"number": 0.1, "category": 0.1, "text": 0.55}
FAR: Final[Mapping[Kind, float]] = {"number": 0.2, "category": 0.2, "text": 0.65}
MEASURE: Final[Mapping[Kind, str]] = {"number": "KS", "category": "total variation", "text": "AUC"}
LOAD: Final = ("total_ms", "overhead_ms")

MOST_ROWS: Final = 2000
"""Rows of each window that are compared; of more, whole units are drawn. Bounds memory and seconds, not what is seen."""

MOST_OF_A_UNIT: Final = 50
ENOUGH_EMBEDDED: Final = 0.9

COLUMNS: Final[Mapping[str, tuple[Kind, str]]] = {
    "prompt_chars": ("number", "length(prompt_text)"),
    "prompt_words": ("number", r"len(regexp_extract_all(prompt_text, '\S+'))"),
    "input_tokens": ("number", "nullif(input_tokens, 0)"),
    "output_tokens": ("number", "nullif(output_tokens, 0)"),
    "total_ms": ("number", "total_ms"),
    "overhead_ms": ("number", "overhead_ms"),
    "support": ("number", "support"),
    PROMPT: ("number", "toxic_prompt"),
    OUTPUT: ("number", "toxic_output"),
    "language": ("category", "coalesce(language, 'unknown')"),
    "action": ("category", "coalesce(action, 'unknown')"),
    "finish_reason": ("category", "coalesce(finish_reason, 'none')"),
    "prompt_text": ("text", "nullif(trim(prompt_text), '')"),
    "output_text": ("text", "nullif(trim(output_text), '')"),
}
"""Name → kind, and the SQL of its value; null where a row has none. One line more is one column more."""

_TOLD: Final = re.compile(r"; (?:more|fewer): \w+(?:, \w+)*")
"""The words of a text column in a reason, as `_finding` writes them."""

UNITS: Final = ("coalesce(tenant || '/' || \"user\", session, request_id)", "coalesce(session, request_id)")
"""Which rows belong together, the coarser first."""


@dataclass(frozen=True)
class Drifted:
    """One column that was looked at. `said`: for texts, what the classifier says of each row kept."""

    name: str
    kind: Kind
    shift: Shift
    kept: NDArray[np.bool_]
    said: NDArray[np.float32] | None = None

    @property
    def certain(self) -> bool:
        return self.shift.adjusted < ALPHA and self.shift.effect >= FLOOR[self.kind]

    @property
    def far(self) -> bool:
        return self.certain and self.name not in LOAD and self.shift.effect >= FAR[self.kind]


class Drift:
    """The job. It has no scorer: what it compares is in the lake already."""

    name = "drift"
    version = "1"
    compares = True

    def scorers(self, settings: Settings) -> tuple[Scorer, ...]:
        return ()

    def judge(self, case: Case, scorers: Sequence[Scorer]) -> Finding:
        reference = case.reference or case.window.previous
        n_reference = case.rows(reference)
        if min(n_reference, case.rows(case.window)) < case.min_n:
            return Finding("unknown", f"{n_reference} requests in the reference {reference}, {case.min_n} are needed")
        least = max(5, case.min_n // 2)
        rows = _rows(case, reference, least)
        sides = Sides(rows.column("unit").to_pylist(), rows.column("current").to_pylist())
        everything = np.ones(rows.num_rows, np.bool_)
        units = sides.smaller(everything)
        if units < least:
            return Finding("unknown", f"only {units} separate users or sessions on one side, {least} are needed")
        columns, left_out = compare(rows, sides, least)
        return _finding(reference, rows, sides, columns, left_out)


def compare(rows: pa.Table, sides: Sides, least: int) -> tuple[list[Drifted], dict[str, str]]:
    """Every column of `COLUMNS`, and why some could not be compared. One that fails costs itself only.

    `least`: a column needs values from so many units on either side.
    """
    distances: dict[str, Distances] = {}
    kept: dict[str, NDArray[np.bool_]] = {}
    said: dict[str, NDArray[np.float32] | None] = {}
    left_out: dict[str, str] = {}
    for name, (kind, _) in COLUMNS.items():
        column = rows.column(name)
        keep = _present(column)
        embeddings = _embeddings(rows.column("embedding"), keep, sides) if name == "prompt_text" else None
        if embeddings is not None:
            keep = keep & _present(rows.column("embedding"))
        if sides.smaller(keep) < least:
            left_out[name] = "too few values"
        elif len(column.filter(pa.array(keep)).unique()) < 2:
            left_out[name] = "one value throughout"
        else:
            try:
                distances[name], said[name] = _distances(kind, column, keep, sides, embeddings)
                kept[name] = keep
            except (ValueError, TypeError, ArithmeticError, MemoryError) as error:
                left_out[name] = f"{type(error).__name__}: {error}"
    shifts = judged(distances)
    return [Drifted(name, COLUMNS[name][0], shift, kept[name], said[name]) for name, shift in shifts.items()], left_out


def _distances(
    kind: Kind, column: pa.ChunkedArray, keep: NDArray[np.bool_], sides: Sides, embeddings: NDArray[np.float32] | None
) -> tuple[Distances, NDArray[np.float32] | None]:
    if kind == "number":
        return ks(_numbers(column), keep, sides), None
    if kind == "category":
        return variation(column.to_pylist(), keep, sides), None
    return telling(column.to_pylist(), keep, sides, embeddings)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return numbers


def _present(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which rows have a value; of numbers, a finite one."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.isfinite(_numbers(column))
    valid: NDArray[np.bool_] = column.is_valid().to_numpy()
    return valid


def _embeddings(column: pa.ChunkedArray, keep: NDArray[np.bool_], sides: Sides) -> NDArray[np.float32] | None:
    """(n, dimensions) unit rows, zero where there is none; None where too few rows of a side have one, or of one length."""
    present = _present(column)
    for side in (sides.current, ~sides.current):
        if (present & keep & side).sum() < ENOUGH_EMBEDDED * (keep & side).sum():
            return None
    bodies = column.to_pylist()
    lengths = {len(body) for body in bodies if body is not None}
    if len(lengths) != 1:
        return None
    nothing = bytes(lengths.pop())
    halves = np.frombuffer(b"".join(body or nothing for body in bodies), np.dtype("<f2"))
    vectors = halves.astype(np.float32).reshape(len(bodies), -1)
    unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return unit


def _rows(case: Case, reference: Window, least: int) -> pa.Table:
    """The rows of both windows, oldest first: unit, current (true or false), embedding, and the columns of `COLUMNS`."""
    parameters: dict[str, Any] = bounds("c", case.window) | bounds("r", reference)
    for unit in UNITS:
        units = case.query(
            f"SELECT count(*) AS units, sum(least(n, {MOST_OF_A_UNIT})) AS n FROM (SELECT {inside('c')} AS current, "
            f"{unit} AS unit, count(*) AS n FROM interactions WHERE {inside('c')} OR {inside('r')} GROUP BY ALL) "
            "GROUP BY current",
            parameters,
        ).to_pydict()
        if min(units["units"]) >= least:
            break
    values = ", ".join(f'{sql} AS "{name}"' for name, (_, sql) in COLUMNS.items())
    return case.query(
        f"SELECT {unit} AS unit, {inside('c')} AS current, embedding, {values} FROM interactions "
        f"LEFT JOIN (SELECT request_id AS scored, max(value) FILTER (name = '{PROMPT}') AS toxic_prompt, "
        f"max(value) FILTER (name = '{OUTPUT}') AS toxic_output FROM scores WHERE scorer = '{TOXICITY}' AND "
        f"scorer_version = $judge AND ({during('c')} OR {during('r')}) GROUP BY request_id) ON scored = request_id "
        f"WHERE ({inside('c')} OR {inside('r')}) AND hash({unit}) % $every = 0 "
        f"QUALIFY row_number() OVER (PARTITION BY current, unit ORDER BY received_at, request_id) <= {MOST_OF_A_UNIT} "
        "ORDER BY received_at, request_id",
        parameters | {"judge": _toxicity_version(case, parameters), "every": math.ceil(max(units["n"]) / MOST_ROWS)},
    )


def _toxicity_version(case: Case, parameters: Mapping[str, Any]) -> str:
    """The judge that scored most of both windows: scores of two judges must not be compared."""
    found = case.query(
        f"SELECT scorer_version FROM scores WHERE scorer = '{TOXICITY}' AND ({during('c')} OR {during('r')}) "
        f"GROUP BY scorer_version ORDER BY least(count(*) FILTER ({during('c')}), count(*) FILTER ({during('r')})) DESC, "
        "max(scored_at) DESC LIMIT 1",
        parameters,
    )
    return str(found.column(0)[0].as_py()) if found.num_rows else ""


def without_words(reason: str) -> str:
    """A reason without the telling words that stand in it: the plain one that an alert has."""
    return _TOLD.sub("", reason)


def _verdict(columns: Sequence[Drifted], reference: Window, words: Mapping[str, str]) -> tuple[Verdict, str]:
    if not columns:
        return "unknown", "no column has enough values on both sides"
    certain = sorted((column for column in columns if column.certain), key=lambda column: column.shift.adjusted)
    if not certain:
        nearest = min(columns, key=lambda column: column.shift.adjusted)
        return "pass", (
            f"none of {len(columns)} columns differs from {reference} by more than chance "
            f"(the nearest: {nearest.name}, {_described(nearest)})"
        )
    named = "; ".join(f"{column.name} ({_described(column)}{words.get(column.name, '')})" for column in certain)
    verdict: Verdict = "fail" if any(column.far for column in certain) else "warn"
    return verdict, f"{len(certain)} of {len(columns)} columns differ from {reference}: {named}"


def _described(column: Drifted) -> str:
    return f"{MEASURE[column.kind]} {column.shift.effect:.2f}, p {column.shift.adjusted:.2g}"


def _words(column: Drifted, rows: pa.Table, sides: Sides) -> dict[str, list[str]]:
    more, fewer = telling_words(rows.column(column.name).to_pylist(), column.kept, sides)
    return {"more": more, "fewer": fewer}


def _finding(
    reference: Window, rows: pa.Table, sides: Sides, columns: Sequence[Drifted], left_out: Mapping[str, str]
) -> Finding:
    words = {column.name: _words(column, rows, sides) for column in columns if column.kind == "text" and column.certain}
    phrases = {
        name: "".join(f"; {which}: {', '.join(found)}" for which, found in both.items() if found)
        for name, both in words.items()
    }
    verdict, reason = _verdict(columns, reference, phrases)
    drawn = drift_report.draw([_drawing(column, rows, sides) for column in columns], ALPHA)
    n_current = int(sides.current.sum())
    metrics: dict[str, float] = {
        "columns": len(columns),
        "drifted": sum(column.certain for column in columns),
        "compared": n_current,
        "compared_reference": rows.num_rows - n_current,
        "units": sides.smaller(np.ones(rows.num_rows, np.bool_)),
    }
    for column in columns:
        metrics |= {f"{column.name}.effect": column.shift.effect, f"{column.name}.p": column.shift.adjusted}
    body = {
        "verdict": verdict,
        "reason": reason,
        "reference": str(reference),
        "columns": [_plain(column, words) for column in columns],
        "left_out": {**left_out, **drawn.left_out},
        "evidently": drawn.json,
    }
    params = {"alpha": ALPHA, "permutations": TIMES}
    _, plain = _verdict(columns, reference, {})
    return Finding(verdict, reason, metrics, params, {"report.html": drawn.html, "report.json": body}, plain)


def _drawing(column: Drifted, rows: pa.Table, sides: Sides) -> drift_report.Column:
    """A column as the report shows it. Of texts it shows what the classifier says, never the text: a report outlives the
    requests that are erased."""
    current = sides.current[column.kept]
    if column.said is not None:
        values: NDArray[Any] = column.said
    elif column.kind == "number":
        values = _numbers(rows.column(column.name))[column.kept]
    else:
        values = np.array(rows.column(column.name).to_pylist(), object)[column.kept]
    return drift_report.Column(
        name=column.name,
        method=column.kind,
        reference=values[~current],
        current=values[current],
        p=column.shift.adjusted,
        drifted=column.certain,
    )


def _plain(column: Drifted, words: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {"column": column.name, "measure": MEASURE[column.kind], "effect": column.shift.effect}
    plain |= {"p": column.shift.p, "adjusted_p": column.shift.adjusted, "drifted": column.certain, "far": column.far}
    return plain | {"rows": int(column.kept.sum()), **({"words": words[column.name]} if column.name in words else {})}
