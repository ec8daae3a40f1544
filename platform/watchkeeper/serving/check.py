"""Is an answer supported by the sources it was given? Sentence by sentence, by its words, numbers, names and negations.

A sentence's score is the share of its words that one source holds (function words count a third); a number or a name that
no source holds, or a negation or opposite that the source does not share, brings it down below `SUPPORTED`. Word overlap
beats entailment by embedding here (AUC .95 against .82 on human labels, see the README); what it cannot see is a false
statement built from the source's own words, and an answer in another language than its sources. Knows nothing of what is
true: only of what the sources say.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from watchkeeper.record import Source
from watchkeeper.serving import numbers, words
from watchkeeper.serving.sentences import split

SUPPORTED: Final = 0.7
KEPT_SOURCES: Final = 512
"""Passages that stay taken apart, some 20 KB each."""
_FUNCTION_WORD: Final = 0.3
_UNKNOWN_NUMBER: Final = 0.2
_UNKNOWN_NAME: Final = 0.5
_OPPOSED: Final = 0.4
_LACKED_NUMBER: Final = 0.5
_AS_GOOD: Final = 0.05
_SPEAKER_LIST: Final = "i me my mine myself i'm i've i'll i'd"
_SPEAKER: Final = frozenset(_SPEAKER_LIST.split())
"""No source speaks of the speaker: these count as full words, though they are function words."""

_COURTESY: Final = re.compile(
    r"\W*(?:(?:hi|hello|hey|dear)\b(?:,?\s\w+){0,3}"
    r"|(?:thanks?|thank you|you(?:'|’)?re welcome|welcome|sure|of course|certainly|absolutely|great|good|okay|ok|yes|no)"
    r"(?:,?\s(?:thing|question|idea|morning|afternoon|evening|a lot|so much|very much|again"
    r"|for asking|for your (?:question|message)|to help|you|it|is|does|do|are|can|there))*)\W*"
    r"|.*\b(?:let me know|(?:hope|hoping) (?:this|that|it) helps?|feel free|(?:happy|glad) to (?:help|assist)"
    r"|how (?:can|may) i (?:help|assist)|anything else)\b.*",
    re.I | re.S,
)
_LEAD_IN: Final = re.compile(r"\W*(?:here|below|the following|these|this)\b[^.!?]{0,80}:\s*", re.I)
_REFUSAL: Final = re.compile(
    r"\b(?:do not|don(?:'|’)t|cannot|can(?:'|’)?t|could(?: not|n(?:'|’)t)|unable to|not able to)(?: \w+)? "
    r"(?:know|find|answer|provide|determine|tell|say|help|assist"
    r"|have (?:\w+ ){0,3}(?:information|answer|details?|access|knowledge))\b"
    r"|\bnot (?:sure|certain)\b|\bno (?:\w+ )?(?:information|mention|details?)\b"
    r"|\bi(?:'|’)?m sorry\b|\bi apologi[sz]e\b|\bas an ai\b"
    r"|\b(?:sources?|documents?|context|texts?|passages?|handbook|information)\b.{0,40}?\b(?:not|n(?:'|’)t)\b.{0,20}?"
    r"\b(?:mention|say|contain|include|provide|specify|specified|hold|state|cover|address|give|given|available|found|answer)"
    r"|\bwei(?:ß|ss) (?:es |das |ich )?nicht\b|\bne sais pas\b|\bno (?:lo )?s[eé]\b|\bnon (?:lo )?so\b|\bn[aã]o sei\b"
    r"|わかりません|分かりません|知りません|不知道|모르",
    re.I,
)
_TURN: Final = re.compile(r"\b(?:but|however|although)\b", re.I)
_NOT_NEGATIONS: Final = re.compile(
    r"\b(?:not only|no (?:later|more|less|fewer|longer) than|not (?:more|less|later) than|whether or not|if not|no\.? ?\d)",
    re.I,
)
_NEGATION: Final = re.compile(
    r"\b(?:no|not|never|none|cannot|without|neither|nor|nobody|nothing|unable|impossible|non(?=-)|nicht|kein\w*|niemals|ohne|jamais"
    r"|sans|nunca|ning[uú]n\w*|senza)\b|n['’]t\b"
    r"|(?P<after>\b(?:forbid\w*|forbade|prohibit\w*|banned|refus(?:e[ds]?|ing)|denied)\b|不|没|沒|無|ない|ません|않|없)",
    re.I,
)
_ALLOWING_LIST: Final = "allowed able permitted possible eligible required entitled"
_ALLOWING: Final = frozenset(map(words.stem, _ALLOWING_LIST.split()))
_OPPOSITE_LIST: Final = """
    increase/decrease before/after more/less most/least maximum/minimum always/never mandatory/optional required/optional
    paid/unpaid above/below buy/sell open/closed start/end first/last high/low higher/lower highest/lowest early/late
    earlier/later include/exclude accept/reject allow/forbid permit/prohibit enable/disable internal/external public/private
    win/lose success/failure true/false legal/illegal valid/invalid safe/unsafe limited/unlimited left/right north/south
    east/west best/worst
"""
_PAIRS: Final = [
    (words.stem(one), words.stem(other)) for one, _, other in (entry.partition("/") for entry in _OPPOSITE_LIST.split())
]
_OPPOSITES: Final = dict([*_PAIRS, *((other, one) for one, other in _PAIRS)])
"""By stem, and both ways."""
_CITATION: Final = re.compile(r"\[\d{1,2}(?:,\s*\d{1,2})*\]|\(?\b[Ss]ources?\s\d{1,2}\b\)?")
_MARK: Final = re.compile(
    r"\s*(?:[-*+•‣–—>|]\s+|\d{1,3}[.)]\s+|\(?[a-z]\)\s+|(?:yes|no|not really|well|actually)[,.!]\s+)*", re.I
)
_HEADING: Final = re.compile(r"\s*(?:#{1,6}\s.*|\*\*[^*]+\*\*:?\s*)")
_NAME: Final = re.compile(r"(?<=[\w,;:)’'\"] )[(\"“‘*_]*([^\W\d_a-zß-ÿ][\w’'-]+)")


_GERMAN: Final = frozenset(
    {"der", "die", "das", "und", "ist", "sind", "nicht", "ein", "eine", "im", "den", "mit", "von", "zu", "haben"}
)
_NUMERIC: Final = numbers.SPELLED.keys() | {"am", "pm", "a.m", "p.m"}
_CAPITALISED: Final = re.compile(
    r"(?:[^\W\d_a-zß-ÿ][\w’'-]*[ \t]+(?:(?:of|and|the|for)[ \t]+)?){1,5}[^\W\d_a-zß-ÿ][\w’'-]*"
)


class Sentence(msgspec.Struct, frozen=True):
    """`score` in [0, 1] and `supported` are None where there is nothing to check: `reason` says what it is instead (a
    question, say). Elsewhere `reason` says what is missing, empty where nothing is. `sources`: the places, from 0, of the
    sources that carry a supported one, two at the most."""

    text: str
    score: float | None
    supported: bool | None
    reason: str
    sources: tuple[int, ...] = ()


class Support(msgspec.Struct, frozen=True):
    """`overall`: the share of the claims that the sources support; None where there is no claim, or no source.
    `score`: the mean score of the claims, a finer measure of the same."""

    overall: float | None
    score: float | None
    sentences: tuple[Sentence, ...]


class Checker:
    """Checks sentences against sources, each text once. The prompt's names, and numbers no source speaks against, need no
    source."""

    def __init__(self, sources: Sequence[Source], prompt: str = "") -> None:
        self._basis = _Basis(sources, prompt) if any(source.text.strip() for source in sources) else None
        self._known: dict[str, Sentence] = {}

    def sentence(self, text: str) -> Sentence:
        """One sentence, as `split` gives it."""
        text = text.strip()
        if self._basis is None:
            return Sentence(text, None, None, "no source")
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = _check(text, self._basis)
        return known

    def support(self, answer: str) -> Support:
        """How far the sources carry `answer`."""
        if self._basis is None:
            return Support(None, None, ())
        checked = tuple(self.sentence(piece) for piece in split(answer) if piece.strip())
        scores = [sentence.score for sentence in checked if sentence.score is not None]
        if not scores:
            return Support(None, None, checked)
        held = sum(sentence.supported is True for sentence in checked)
        return Support(held / len(scores), sum(scores) / len(scores), checked)


def support(answer: str, sources: Sequence[Source], prompt: str = "") -> Support:
    """How far `sources` carry `answer`; see `Checker`."""
    return Checker(sources, prompt).support(answer)


class _Statement:
    """A sentence taken apart: its stems, those that carry meaning, and those of them that it denies."""

    def __init__(self, text: str) -> None:
        self.stems = frozenset(words.stem(token) for token in words.tokens(text))
        self.content = frozenset(words.content(text))
        self.denied = _denied(text)


class _Part:
    """One source taken apart. The same few passages are found again and again, so this is kept."""

    def __init__(self, title: str, text: str) -> None:
        whole = f"{title}\n{text}"
        self.stems = frozenset(words.stem(token) for token in words.tokens(whole))
        self.statements = [_Statement(piece) for piece in split(text) if piece.strip()]
        found = numbers.find(whole)
        self.readings = frozenset(reading for number in found for reading in number.readings)
        self.units = frozenset(number.unit for number in found if number.unit)
        self.ranges = list(numbers.ranges(whole))
        self.acronyms = frozenset(
            "".join(word[0] for word in name.split() if word[0].isupper())[:length].lower()
            for name in _CAPITALISED.findall(whole)
            for length in range(2, 7)
        )


_part = lru_cache(maxsize=KEPT_SOURCES)(_Part)


class _Basis:
    """What the answer may rest on."""

    def __init__(self, sources: Sequence[Source], prompt: str) -> None:
        parts = [_part(source.title, source.text) for source in sources]
        self.stems = [part.stems for part in parts]
        self.all_stems = frozenset().union(*self.stems)
        self.statements = [statement for part in parts for statement in part.statements]
        self.readings_of = [part.readings for part in parts]
        self.readings = frozenset().union(*self.readings_of)
        self.units = frozenset().union(*(part.units for part in parts))
        self.ranges = [span for part in parts for span in part.ranges]
        self.acronyms = frozenset().union(*(part.acronyms for part in parts))
        self.prompt_stems = frozenset(words.stem(token) for token in words.tokens(prompt))
        self.prompt_readings = frozenset(reading for number in numbers.find(prompt) for reading in number.readings)

    def holds(self, number: numbers.Number) -> bool:
        """Whether a source gives this number, or the prompt does and no source gives another one of its unit."""
        if number.readings & self.readings:
            return True
        if number.spelled and max(value for value in number.readings if isinstance(value, float)) <= 10:
            return number.unit not in self.units  # "two ways" may just count what the source lists
        if not number.readings & self.prompt_readings:
            return False
        within = any(
            low <= value <= high and unit == number.unit
            for value in number.readings
            if isinstance(value, float)
            for low, high, unit in self.ranges
        )
        return within or number.unit not in self.units


def _check(piece: str, basis: _Basis) -> Sentence:
    text = piece.strip()
    other = _no_claim(text)
    if other:
        return Sentence(text, None, None, other)
    claim = _CITATION.sub(" ", text)
    claim = claim.removeprefix(marks[0]) if (marks := _MARK.match(claim)) else claim
    tokens = words.tokens(claim)
    if all(token in words.STOP for token in tokens):
        return Sentence(text, None, None, "nothing to check")
    shares, together = _shares([token for token in tokens if token not in _NUMERIC and not token[0].isdigit()], basis)
    # What only several sources together hold counts half.
    score = (max(shares) + together) / 2
    reason = "" if score >= SUPPORTED else "words that are not in the sources"
    found = numbers.find(claim)
    missing = [number.written for number in found if not basis.holds(number)]
    names = _unknown_names(claim, basis)
    if missing:
        score, reason = min(score, _UNKNOWN_NUMBER), f"number not in the sources: {missing[0]}"
    elif names:
        score, reason = min(score, _UNKNOWN_NAME), f"name not in the sources: {names[0]}"
    elif _opposed(claim, basis):
        score, reason = min(score, _OPPOSED), "says the opposite of a source"
    supported = score >= SUPPORTED
    return Sentence(text, score, supported, reason, _carriers(shares, found, basis) if supported else ())


def _carriers(shares: Sequence[float], found: Sequence[numbers.Number], basis: _Basis) -> tuple[int, ...]:
    """The sources to name for a sentence: the one that holds most of its words and all of its numbers, and another that
    is as good; where it takes several, the best two."""
    worth = [
        share - _LACKED_NUMBER * sum(not number.readings & readings for number in found)
        for share, readings in zip(shares, basis.readings_of, strict=True)
    ]
    order = sorted(range(len(worth)), key=lambda at: -worth[at])[:2]
    if worth[order[0]] >= SUPPORTED:
        order = [at for at in order if worth[at] >= max(SUPPORTED, worth[order[0]] - _AS_GOOD)]
    return tuple(sorted(order))


def _no_claim(text: str) -> str:
    """What a sentence is when it claims nothing; empty for a claim."""
    if text.startswith(("```", "~~~")):
        return "code"
    if text.rstrip("\"'”’)*_ ").endswith(("?", "？", "؟")):
        return "question"
    if _HEADING.fullmatch(text):
        return "heading"
    refused = max((refusal.end() for refusal in _REFUSAL.finditer(text)), default=0)
    if refused and not _TURN.search(text, refused):
        return "refusal"
    if not any(char.isdigit() for char in text) and (_COURTESY.fullmatch(text) or _LEAD_IN.fullmatch(text)):
        return "courtesy"
    return ""


def _shares(tokens: list[str], basis: _Basis) -> tuple[list[float], float]:
    """The weighted share of the words that each source holds, and that all of them do together. Numbers are no words here:
    they are held or not for themselves."""
    if not tokens:
        return [1.0] * len(basis.stems), 1.0
    weights = [_FUNCTION_WORD if token in words.STOP and token not in _SPEAKER else 1.0 for token in tokens]
    stems = [words.stem(token) for token in tokens]

    def share(held: frozenset[str]) -> float:
        return sum(weight for weight, stem in zip(weights, stems, strict=True) if stem in held) / sum(weights)

    return [share(held) for held in basis.stems], share(basis.all_stems)


def _unknown_names(claim: str, basis: _Basis) -> list[str]:
    """Words capitalised inside the sentence that neither a source nor the prompt holds; none where most are capitalised
    (a title), or all nouns are (German)."""
    names = [
        name for name in _NAME.findall(claim) if words.fold(name) not in _SPEAKER and words.fold(name) not in words.STOP
    ]
    if len(names) > 0.5 * len(claim.split()) or len(_GERMAN & set(words.tokens(claim))) >= 2:
        return []
    known = basis.all_stems | basis.prompt_stems | basis.acronyms
    return [name for name in names if any(words.stem(token) not in known for token in words.tokens(name))]


def _opposed(claim: str, basis: _Basis) -> bool:
    """Whether a sentence of a source that is about the same denies what the claim asserts, or the other way round."""
    said = _Statement(claim)
    like = [(statement, common) for statement in basis.statements if (common := _in_common(said, statement))]
    disputed: dict[str, int] = {}
    for statement, common in like:
        if bool(said.denied) != bool(statement.denied):
            stems = set((said.denied | statement.denied) & said.content & statement.content)
        elif not said.denied:
            stems = {stem for stem in said.stems - statement.stems if _OPPOSITES.get(stem) in statement.stems - said.stems}
        else:
            stems = set()
        disputed |= {stem: max(common, disputed.get(stem, 0)) for stem in stems}
    agreeing = [(statement.stems, common) for statement, common in like if bool(said.denied) == bool(statement.denied)]
    return any(not any(stem in stems and common >= least for stems, common in agreeing) for stem, least in disputed.items())


def _in_common(one: _Statement, other: _Statement) -> int:
    """How many words two sentences share, where one holds most of what the other says; else 0."""
    common = len(one.content & other.content)
    return common if common >= 2 and common >= 0.6 * min(len(one.content), len(other.content)) else 0


def _denied(text: str) -> frozenset[str]:
    """The stems that the negations in a text bear on: the next word that means something, and one more after a word of
    allowing (`not allowed to smoke`); after `forbidden` and its like, the words before it."""
    plain = _NOT_NEGATIONS.sub(" ", text)
    denied: set[str] = set()
    for match in _NEGATION.finditer(plain):
        following = words.content(plain[match.end() : match.end() + 60])
        denied.update(following[: 2 if following and following[0] in _ALLOWING else 1])
        if match["after"]:
            denied.update(words.content(plain[max(0, match.start() - 60) : match.start()])[-3:])
    return frozenset(denied)
