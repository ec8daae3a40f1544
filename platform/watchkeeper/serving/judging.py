"""Guards over a text: which subjects it is cut into, and how their verdicts become one per guard, target and category.

Knows nothing of where the text comes from or of what a block leads to.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.record import ACTIONS, Verdict
from watchkeeper.release import Policy
from watchkeeper.serving.guard import Guard, Judgement, Subject, judge
from watchkeeper.serving.stages.embed import MOST, OVERLAP, WINDOW, windows

Spans = tuple[tuple[int, int, str], ...]


def judge_text(
    guards: Sequence[Guard],
    policies: Mapping[str, Policy],
    subject: Subject,
    embeddings: Mapping[str, NDArray[np.float32]],
) -> Judgement:
    """All guards that look at the subject's target. One that reads the embedding looks at each window of a long text."""
    verdicts: list[Verdict] = []
    spans: list[tuple[int, int, str]] = []
    pieces = windows(subject.text)
    for guard in guards:
        policy = policies.get(guard.name, Policy())
        if subject.target not in guard.targets or not policy.enabled:
            continue
        first = judge(guard, msgspec.structs.replace(subject, embedding=embeddings.get(pieces[0])), policy)
        verdicts += first.verdicts
        spans += first.spans
        if not guard.reads_embedding:
            continue
        for piece in pieces[1:]:
            part = msgspec.structs.replace(subject, text=piece, scan=piece, embedding=embeddings.get(piece))
            verdicts += judge(guard, part, policy).verdicts
        if len(subject.text) > WINDOW + (MOST - 1) * (WINDOW - OVERLAP):
            verdicts.append(Verdict(guard.name, subject.target, "error", "unknown", None, "text_too_long", guard.version))
    return Judgement(merge(verdicts), tuple(spans))


def merge(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """The strongest verdict for each guard, target and category; `none` (nothing found) only where it is all there is."""
    best: dict[tuple[str, str, str], Verdict] = {}
    for verdict in verdicts:
        key = (verdict.guard, verdict.target, verdict.category)
        other = best.get(key)
        if other is None or _strength(verdict) > _strength(other):
            best[key] = verdict
    speaking = {key[:2] for key in best if key[2] != "none"}
    return tuple(verdict for key, verdict in best.items() if key[2] != "none" or key[:2] not in speaking)


def _strength(verdict: Verdict) -> tuple[int, float]:
    return ACTIONS.index(verdict.action), verdict.score or 0.0


def blocking(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The verdict that blocks, if one does."""
    return next((verdict for verdict in verdicts if verdict.action == "block"), None)
