"""What a guard is: it looks at a subject and reports findings; the release's policy turns them into verdicts.

A guard is one file in `guards/` and one line in `GUARDS` there. It knows nothing of requests, of the policy or of what
follows from what it found.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.record import Action, Source, Target, Verdict, strongest
from watchkeeper.release import Policy


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at. `text` as it came; `scan`: its copy for matching (NFKC, look-alike and invisible characters
    resolved), of its own length. `embedding`: float32 (384,), unit length, of `text`; None while the encoder is away.
    `support`: of an output in its sources, as in `Record`; `prompt`: what an output answers."""

    target: Target
    text: str
    scan: str
    embedding: NDArray[np.float32] | None = None
    language: str | None = None
    prompt: str = ""
    sources: tuple[Source, ...] = ()
    support: float | None = None


class Finding(msgspec.Struct, frozen=True):
    """`score` in [0, 1], None where a rule matched. `start`, `end`: the half-open span in `Subject.text` that a redaction
    replaces; both None where the finding is about the whole text."""

    category: str
    rule: str
    score: float | None = None
    start: int | None = None
    end: int | None = None


class Unavailable(Exception):
    """The guard cannot judge now (no embedding, say). The message is a short code for the verdict's `rule`."""


class Guard(Protocol):
    """`targets`: what it is run on. `on_error`: when the guard breaks, `closed` blocks and `open` lets pass as
    `unknown`; while it is merely `Unavailable` (the encoder is away) the verdict is `unknown` for both.
    `reads_embedding`: it judges by the embedding, and so looks at each window of a long text."""

    name: str
    version: str
    targets: tuple[Target, ...]
    on_error: Literal["open", "closed"]
    reads_embedding: bool

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        """All findings, scored ones below any threshold included. Raises `Unavailable`."""
        ...


class Judgement(msgspec.Struct, frozen=True):
    """Verdicts of one guard on one subject, and the spans to redact: (start, end, category)."""

    verdicts: tuple[Verdict, ...]
    spans: tuple[tuple[int, int, str], ...] = ()


def judge(guard: Guard, subject: Subject, policy: Policy) -> Judgement:
    """Runs one guard. Findings of a category make one verdict, the strongest; no finding at all makes one `pass`."""

    def verdict(category: str, action: Action, score: float | None, rule: str) -> Verdict:
        return Verdict(guard.name, subject.target, category, action, score, rule, guard.version)

    try:
        findings = guard.inspect(subject)
    except Unavailable as away:
        return Judgement((verdict("error", "unknown", None, str(away)),))
    except Exception as error:  # a broken guard lets through only what it was told to let through
        action: Action = "block" if guard.on_error == "closed" else "unknown"
        return Judgement((verdict("error", action, None, type(error).__name__),))
    spans = tuple(
        (finding.start, finding.end, finding.category)
        for finding in findings
        if finding.start is not None and finding.end is not None and action_of(finding, policy) == "redact"
    )
    verdicts = []
    for category in dict.fromkeys(finding.category for finding in findings):
        group = [finding for finding in findings if finding.category == category]
        action = strongest(action_of(finding, policy) for finding in group)
        top = max(group, key=lambda finding: (action_of(finding, policy) == action, finding.score or 0.0))
        verdicts.append(verdict(category, action, top.score, top.rule))
    return Judgement(tuple(verdicts) or (verdict("none", "pass", None, ""),), spans)


def action_of(finding: Finding, policy: Policy) -> Action:
    if finding.score is None:
        return policy.action
    if policy.block_at is not None and finding.score >= policy.block_at:
        return "block"
    if policy.flag_at is not None and finding.score >= policy.flag_at:
        return "flag"
    return "pass"
