"""Feedback on its way into MLflow: each becomes an assessment of a person on the trace of its request, once.

Sent again it is found by its id, which the assessment carries. What can never be attached is given back with the reason.
Knows nothing of cursors, nor of how records are sent.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Final

from watchkeeper.feedback import Feedback
from watchkeeper.telemetry.segment import Row
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.assessments import Assessment, AssessmentRefused, Assessments, Held, TraceUnknown

ID: Final = "watchkeeper.feedback_id"
"""The key in an assessment's metadata by which a feedback is known again."""

REFUSED: Final = "watchkeeper.refused"
"""The key in the metadata of one that stands for a refused feedback: why, so that it is known also after a crash."""

NOBODY: Final = "anonymous"
"""MLflow wants to know of whom a person's assessment is."""

UNKNOWN: Final = "MLflow has no trace of its request, and none came within a day"

Said = tuple[Row, Feedback]


class Opinions:
    """Attaches feedback to the traces of one MLflow server. `again`: also what was refused before, of which something
    stands there; that stays beside it."""

    def __init__(self, tracking: Tracking, *, again: bool = False) -> None:
        self._again = again
        self._assessments = Assessments(tracking)
        self._held: dict[str, Sequence[Held]] = {}

    def without_trace(self, said: Sequence[Said]) -> Set[str]:
        """The request ids of which MLflow has no trace; what it has is remembered until `attach`. Raises
        `TrackingUnavailable`."""
        wanted = {feedback.request_id for _, feedback in said}
        self._held = dict(self._assessments.held(wanted))
        return wanted - self._held.keys()

    def known(self, request_ids: Iterable[str]) -> Set[str]:
        """Those of which MLflow has a trace. Raises `TrackingUnavailable`."""
        return self._assessments.held(request_ids).keys()

    def attach(self, said: Sequence[Said]) -> list[tuple[Row, str]]:
        """Attaches what `without_trace` was asked about, and returns what cannot be. Raises `TrackingUnavailable`, and may
        then be called again."""
        refused: list[tuple[Row, str]] = []
        for row, feedback in said:
            held = self._held.get(feedback.request_id)
            if held is None:
                refused.append((row, UNKNOWN))
                continue
            there = [one.metadata for one in held if one.metadata.get(ID) == feedback.feedback_id]
            if any(REFUSED not in metadata for metadata in there):
                continue
            if there and not self._again:
                refused.append((row, there[0][REFUSED]))
                continue
            try:
                if there:
                    self._assessments.create(_assessment(feedback))
                else:
                    self._create(feedback)
            except (TraceUnknown, AssessmentRefused) as refusal:
                refused.append((row, str(refusal)))
        return refused

    def _create(self, feedback: Feedback) -> None:
        """A server that is out of order may refuse everything; then no feedback is to blame. So one that is refused is
        sent once more with nothing in it: only if that is taken was it the content. It stays, to say that there was one."""
        try:
            self._assessments.create(_assessment(feedback))
        except AssessmentRefused as refusal:
            bare = Feedback(
                feedback_id=feedback.feedback_id,
                request_id=feedback.request_id,
                received_at=feedback.received_at,
                label="refused_by_mlflow",
            )
            try:
                self._assessments.create(_assessment(bare, {REFUSED: str(refusal)}))
            except AssessmentRefused as again:
                raise TrackingUnavailable(f"MLflow takes no assessment at all: {again}") from refusal
            raise


def _assessment(feedback: Feedback, further: Mapping[str, str] = MappingProxyType({})) -> Assessment:
    return Assessment(
        request_id=feedback.request_id,
        name=feedback.name,
        value=feedback.score if feedback.score is not None else feedback.label or "",
        kind="HUMAN",
        source=feedback.user or NOBODY,
        at=feedback.received_at,
        rationale=feedback.comment,
        metadata={ID: feedback.feedback_id, **further},
    )
