"""What findings lead to, and what becomes of a guard that cannot judge or breaks."""

from collections.abc import Sequence
from typing import Literal

import pytest

from watchkeeper.record import Action, Target, Verdict
from watchkeeper.release import Policy
from watchkeeper.serving.guard import Finding, Subject, Unavailable, judge
from watchkeeper.serving.judging import blocking, judge_text, merge
from watchkeeper.serving.stages.embed import MOST, OVERLAP, WINDOW, windows


class Scripted:
    """A guard that says what it is told to."""

    name = "scripted"
    version = "1"
    targets: tuple[Target, ...] = ("prompt",)
    reads_embedding = True

    def __init__(self, said: Sequence[Finding] | Exception, on_error: Literal["open", "closed"] = "open") -> None:
        self.said = said
        self.on_error: Literal["open", "closed"] = on_error
        self.seen: list[str] = []

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        self.seen.append(subject.text)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


PROMPT = Subject(target="prompt", text="a text", scan="a text")
POLICY = Policy(flag_at=0.5, block_at=0.9, action="redact")


@pytest.mark.parametrize(("score", "action"), [(0.1, "pass"), (0.5, "flag"), (0.9, "block"), (None, "redact")])
def test_the_policy_decides_what_a_finding_leads_to(score: float | None, action: Action) -> None:
    (verdict,) = judge(Scripted([Finding("c", "r", score)]), PROMPT, POLICY).verdicts
    assert (verdict.action, verdict.score) == (action, score)


def test_only_what_is_to_be_redacted_gives_spans() -> None:
    found = [Finding("mail", "r", None, 0, 3), Finding("tox", "r", 0.95, 3, 5), Finding("whole", "r", None)]
    assert judge(Scripted(found), PROMPT, POLICY).spans == ((0, 3, "mail"),)


def test_no_finding_is_one_pass() -> None:
    (verdict,) = judge(Scripted([]), PROMPT, POLICY).verdicts
    assert (verdict.category, verdict.action) == ("none", "pass")


@pytest.mark.parametrize("on_error", ["open", "closed"])
def test_who_cannot_judge_says_unknown(on_error: Literal["open", "closed"]) -> None:
    (verdict,) = judge(Scripted(Unavailable("no_embedding"), on_error), PROMPT, POLICY).verdicts
    assert (verdict.action, verdict.rule) == ("unknown", "no_embedding")


@pytest.mark.parametrize(("on_error", "action"), [("open", "unknown"), ("closed", "block")])
def test_who_breaks_lets_pass_only_where_it_is_open(on_error: Literal["open", "closed"], action: Action) -> None:
    (verdict,) = judge(Scripted(ZeroDivisionError(), on_error), PROMPT, POLICY).verdicts
    assert (verdict.action, verdict.rule) == (action, "ZeroDivisionError")


def test_a_guard_sees_every_part_of_a_long_text_and_says_where_it_did_not() -> None:
    text = "".join(chr(97 + number % 26) for number in range(5_000))
    guard = Scripted([])
    judge_text([guard], {"scripted": POLICY}, Subject(target="prompt", text=text, scan=text), {})
    assert guard.seen[0] == text
    assert all(text[at : at + 100] in "|".join([*guard.seen[1:], windows(text)[0]]) for at in range(0, 4_900, 100))
    endless = "x" * (WINDOW + MOST * (WINDOW - OVERLAP))
    judged = judge_text([guard], {"scripted": POLICY}, Subject(target="prompt", text=endless, scan=endless), {})
    assert ("unknown", "text_too_long") in {(verdict.action, verdict.rule) for verdict in judged.verdicts}


def test_other_targets_and_what_is_switched_off_are_not_looked_at() -> None:
    guard = Scripted([])
    output = Subject(target="output", text="x", scan="x")
    assert judge_text([guard], {}, output, {}).verdicts == ()
    assert judge_text([guard], {"scripted": Policy(enabled=False)}, PROMPT, {}).verdicts == ()


def test_verdicts_merge_to_the_strongest_of_a_kind() -> None:
    def verdict(category: str, action: Action, score: float) -> Verdict:
        return Verdict("g", "prompt", category, action, score, "r", "1")

    merged = merge(
        [verdict("none", "pass", 0), verdict("a", "flag", 0.6), verdict("a", "block", 0.9), verdict("b", "pass", 0)]
    )
    assert [(one.category, one.action) for one in merged] == [("a", "block"), ("b", "pass")]
    stop = blocking(merged)
    assert stop is not None
    assert stop.category == "a"
