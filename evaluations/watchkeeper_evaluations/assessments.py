"""Flagged scores, shown where people look: assessments on the traces in MLflow, once a trace, score and scorer@version.

All scores are in the lake. MLflow takes assessments one by one, so it gets those that `Score.flags` says are for a person
to look at, and of a window no more than `MOST`. Knows nothing of verdicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from watchkeeper.lake.interactions import Time, microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper.tracking.assessments import Assessment, AssessmentRefused, Assessments, Held, TraceUnknown
from watchkeeper_evaluations.case import bounds, during
from watchkeeper_evaluations.scorer import Score, Scorer, identity
from watchkeeper_evaluations.window import Window

MOST: Final = 200
"""Assessments of one window, the worst first: some seconds of MLflow's time, and more than anyone reads."""

LEAST: Final = 1e-9
"""Added to both, so that a score which is flagged at the very end of its range, as an assertion, counts as the worst."""

SCORER: Final = "watchkeeper.scorer"
EVALUATION: Final = "watchkeeper.evaluation_id"


@dataclass(frozen=True)
class Assessed:
    """`made`: assessments added just now. `left`: flagged too, but MLflow has no such trace (yet) or refuses it: for the
    next evaluation of the window."""

    made: int
    left: int


def assess(
    lake: Lake, assessments: Assessments, scorers: Sequence[Scorer], window: Window, *, evaluation_id: str, at: Time
) -> Assessed:
    """Puts the worst flagged scores of the window on their traces, whichever evaluation scored them.

    `at`: the time that the assessments bear. Raises `TrackingUnavailable`, `LakeUnavailable`; again, it goes on from there.
    """
    worst = _flagged(lake, scorers, window)
    held = assessments.held(flagged["request_id"] for flagged in worst)
    made = left = 0
    for flagged in worst:
        there = held.get(flagged["request_id"])
        if there is not None and any(_same(one, flagged) for one in there):
            continue
        try:
            if there is None:
                raise TraceUnknown(flagged["request_id"])
            assessments.create(_assessment(flagged, evaluation_id, microseconds(at)))
            made += 1
        except (TraceUnknown, AssessmentRefused):
            left += 1
    return Assessed(made, left)


def _flagged(lake: Lake, scorers: Sequence[Scorer], window: Window) -> list[dict[str, Any]]:
    """The flagged scores of the window, the worst first, whoever gave them: at most `MOST`."""
    sql = (
        "SELECT request_id, name, kind, value, explanation, "
        f"greatest((value - $above::DOUBLE + {LEAST}) / $room_above, ($below::DOUBLE - value + {LEAST}) / $room_below) "
        "AS excess "
        f"FROM scores WHERE {during('w')} AND replay IS NOT TRUE AND scorer = $scorer AND scorer_version = $version "
        "AND name = $name AND (value >= $above::DOUBLE OR value < $below::DOUBLE) "
        f"ORDER BY excess DESC, request_id LIMIT {MOST}"
    )
    found: list[dict[str, Any]] = []
    for scorer in scorers:
        for score in scorer.scores:
            if score.flag_from is not None or score.flag_below is not None:
                chosen = {"scorer": scorer.name, "version": scorer.version, "name": score.name}
                rows = lake.query(sql, bounds("w", window) | chosen | _limits(score)).to_pylist()
                found += [row | {"scorer": identity(scorer)} for row in rows]
    return sorted(found, key=lambda row: (-row["excess"], row["request_id"], row["name"]))[:MOST]


def _limits(score: Score) -> dict[str, float | None]:
    """From where a score is flagged, and how far it is from there to the end of its range."""
    return {
        "above": score.flag_from,
        "below": score.flag_below,
        "room_above": LEAST if score.flag_from is None else score.high - score.flag_from + LEAST,
        "room_below": LEAST if score.flag_below is None else score.flag_below - score.low + LEAST,
    }


def _same(held: Held, flagged: dict[str, Any]) -> bool:
    return (held.name, held.metadata.get(SCORER)) == (flagged["name"], flagged["scorer"])


def _assessment(flagged: dict[str, Any], evaluation_id: str, at: int) -> Assessment:
    value = flagged["value"]
    return Assessment(
        request_id=flagged["request_id"],
        name=flagged["name"],
        value=bool(value) if flagged["kind"] == "assertion" else value,
        kind="CODE",
        source=flagged["scorer"],
        at=at,
        rationale=flagged["explanation"],
        metadata={SCORER: flagged["scorer"], EVALUATION: evaluation_id},
    )
