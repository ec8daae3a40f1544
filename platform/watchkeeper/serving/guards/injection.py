"""injection: a text that tries to take over the model's instructions, in a prompt or in a retrieved passage.

Rules (injection.toml) and the injection head on the embedding. A rule without a score decides on its own, unless it
matched inside quotation marks in a prompt that talks about such texts. Hints and the head add up: each says how likely an
attack is, and what is left of the doubt is multiplied. Without an embedding the rules speak alone, and where they are
silent the guard is unavailable: it does not know.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from watchkeeper.encoder.heads import Head
from watchkeeper.record import Target
from watchkeeper.serving.guard import Finding, Subject, Unavailable
from watchkeeper.serving.guards import rules

CATEGORY: Final = "injection"
RULES: Final = rules.load("injection.toml", CATEGORY)
MENTIONED: Final = 0.6
"""Of a rule that decides, when it is only quoted."""

CONTROL_TOKENS = re.compile(
    r"<[|｜][^<>\n]{1,40}[|｜]>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\]|<</?SYS>>"
    r"|</?(?:start_of_turn|end_of_turn|bos|eos|s|unk|pad|begin_of_text|end_of_text|tool_call|tool_response)>",
    re.IGNORECASE,
)
"""What chat templates put between turns, of the ChatML, Llama, Mistral, Gemma, Phi and DeepSeek families."""

_FORGED_TURN = re.compile(
    r"<[|｜](?:im_start|start_header_id|start|begin)[|｜]>\s{0,4}(?:system|assistant|developer)|<[|｜](?:system|assistant)[|｜]>"
    r"|<<sys>>|<start_of_turn>\s{0,4}(?:system|model)|<[|｜]im_end[|｜]>\s{0,4}<[|｜]im_start"
)
_FORGED_HEADING = re.compile(
    r"(?:^|\n)[#\[<*\s]{0,6}(?:system|system prompt|system message)[\]>*\s]{0,4}:\s", re.IGNORECASE
)
_TAGS = re.compile("[\U000e0020-\U000e007e]{4,}")
_FLAG = "\U0001f3f4"  # regional flags end in tag characters
_QUOTED = re.compile(r"\"[^\"\n]{3,400}\"|`[^`\n]{3,400}`|(?<!\w)'[^'\n]{3,400}'(?!\w)|```[\s\S]{3,2000}?```")
_TALKS_ABOUT: Final = rules.compiled(r"\b{talks_about}\b", rules.words("injection.toml"))
_LEET = re.compile(r"[a-z][0134578@$!|€][a-z]|\b[!1@03][a-z]")
_LEET_LETTERS: Final = str.maketrans("0134578@$!|€", "oieastbasile")
_SPELLED = re.compile(r"(?:\b[a-z][ ._*-]{1,2}){9,}[a-z]\b")
_SPELLED_OUT = re.compile(
    r"(?:ignore|disregard|forget)(?:all|your|any|the|every)*(?:previous|prior|above|earlier)?(?:instruction|prompt|rules)"
    r"|(?:reveal|print|show|repeat)(?:me)?(?:your|the)systemprompt"
)
_BASE64 = re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{24,4000}={0,2}(?![\w+/])")
_BASE64_RUNS: Final = 16

SURE: Final = 0.99
NOT_BLOCKING: Final = 0.89
SUSPICIOUS_PASSAGE: Final = 0.9
FLAGGED: Final = 0.6
"""For `_alone`."""


def neutralise(text: str) -> str:
    """Breaks the control tokens of chat templates, so that no text of a client's or of a passage can end its own turn:
    `<|im_start|>` becomes `< |im_start| >`. All else stays as it is."""
    return CONTROL_TOKENS.sub(lambda token: f"{token[0][0]} {token[0][1:-1]} {token[0][-1]}", text)


class Injection:
    """`head` None: rules only."""

    name = "injection"
    targets: tuple[Target, ...] = ("prompt", "context")
    on_error: Literal["open", "closed"] = "closed"
    reads_embedding = True

    def __init__(self, head: Head | None) -> None:
        self._head = head
        self.version = "1" if head is None else f"1+{head.version}"

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        """One finding of each rule that decides, and one of what the hints and the head come to."""
        decisive: list[Finding] = []
        hints: dict[str, float] = {}
        for name, score in _signs(subject):
            if score is None:
                decisive.append(Finding(CATEGORY, name))
            else:
                hints[name] = max(score, hints.get(name, 0.0))
        judged = self._head_score(subject)
        if judged is not None and not hints:
            judged = _alone(judged, subject.target)
        if judged is None and not decisive and not hints:
            raise Unavailable("no_embedding")
        if judged is None and not hints:
            return decisive
        strongest = max(hints, key=hints.__getitem__, default="")
        doubt = (1.0 - hints.get(strongest, 0.0)) * (1.0 - (judged or 0.0))
        rule = strongest if hints and hints[strongest] >= (judged or 0.0) else "head"
        return [*decisive, Finding(CATEGORY, rule, score=1.0 - doubt)]

    def _head_score(self, subject: Subject) -> float | None:
        if self._head is None or subject.embedding is None:
            return None
        scores = self._head.score(subject.embedding[None])[0]
        return float(scores[self._head.classes.index("injection")])


def _alone(judged: float, target: Target) -> float:
    """What the head's score counts for where no rule stands beside it: ordinary hurried prompts reached .97 and passages
    that explain guards .96, so that it blocks prompts only where it is sure, and never takes a passage out."""
    if target == "prompt":
        return judged if judged >= SURE else min(judged, NOT_BLOCKING)
    return FLAGGED if judged >= SUSPICIOUS_PASSAGE else judged / 2


def _signs(subject: Subject) -> Iterator[tuple[str, float | None]]:
    """Rules that match, with how likely each makes an attack; None: certain."""
    text = subject.scan.lower()
    for match in rules.matches(RULES, text, subject.target):
        yield match.rule.name, _weighed(match.rule.score, subject.target, text, match.start, match.end)
    forged = _FORGED_TURN.search(text)
    if forged:
        yield "forged_turn", _weighed(None, subject.target, text, *forged.span())
    if CONTROL_TOKENS.search(text):
        yield "control_token", 0.6
    if _FORGED_HEADING.search(text):
        yield "forged_heading", 0.4
    if any(subject.text[: tags.start()][-1:] != _FLAG for tags in _TAGS.finditer(subject.text)):
        yield "hidden_text", None
    yield from _disguised(subject.scan, text, subject.target)


def _weighed(score: float | None, target: Target, text: str, start: int, end: int) -> float | None:
    """A decisive rule is a hint where a prompt only quotes what it matched. A passage's quotation marks prove nothing."""
    if score is not None or target != "prompt":
        return score
    for quoted in _QUOTED.finditer(text):
        if quoted.start() < start and end <= quoted.end():
            return MENTIONED if _TALKS_ABOUT.search(text[: quoted.start()] + text[quoted.end() :]) else None
    return None


def _disguised(scan: str, text: str, target: Target) -> Iterator[tuple[str, float | None]]:
    """The rules on what leet spelling, letters set apart or base64 hide."""
    if _LEET.search(text):
        plain = text.translate(_LEET_LETTERS)
        yield from (("leet_" + match.rule.name, match.rule.score) for match in rules.matches(RULES, plain, target))
    for spelled in _SPELLED.finditer(text):
        if _SPELLED_OUT.search("".join(letter for letter in spelled[0] if letter.isalpha())):
            yield "spelled_out", None
    for encoded in list(_BASE64.finditer(scan))[:_BASE64_RUNS]:
        for match in rules.matches(RULES, _decoded(encoded[0]).lower(), target):
            yield "encoded_" + match.rule.name, match.rule.score


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""
