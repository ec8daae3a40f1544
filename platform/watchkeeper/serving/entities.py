"""The names that a knowledge base uses, and which of them a text mentions.

Names come from headings, bold terms, Title Case names, acronyms and code identifiers of the documents, and from a list
(`entities.txt`: one name a line, other spellings after `|`). Matching is exact at word boundaries (acronyms and
identifiers by exact case), then tolerant of one typing error in a long name. Precise rather than complete: a name is not
linked on a guess, and a spelling that two names share links neither. Knows nothing of what the names stand for.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import ahocorasick
from rapidfuzz.distance import OSA

from watchkeeper.serving import words
from watchkeeper.serving.passages import plain

FILE_NAME: Final = "entities.txt"
_NOBODY: Final = ""
"""The name of a spelling that several names share."""
MOST_FUZZY_WORDS: Final = 400
"""Words of a text, from its beginning, that are looked at for near misses."""

_HEADING: Final = re.compile(r"^[ ]{0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.M)
_BOLD: Final = re.compile(r"\*\*([^*\n]{2,60})\*\*|__([^_\n]{2,60})__")
_CODE: Final = re.compile(r"(?<!`)`([^`\s]{3,60})`(?!`)")
_FENCED: Final = re.compile(r"^[ ]{0,3}(```|~~~).*?(?:^[ ]{0,3}\1[^\n]*$|\Z)", re.M | re.S)
_IDENTIFIER: Final = re.compile(
    r"-{0,2}[A-Za-z_][\w.:/@-]*(?:[_.:/@-]\w|[a-z][A-Z])[\w.:/@-]*(?:\(\))?|[A-Z][A-Z\d]+-\d+|--[a-z][\w-]+"
)
_WORD: Final = r"[^\W\d_a-zà-öø-ÿ][\w'’&-]*"
_TITLED: Final = re.compile(rf"(?P<start>^|[.!?:;\n|(\"“]\s*)?\b(?P<name>{_WORD}(?:[ \t]+(?:of|de|von|van|{_WORD}))*)")
_CODED: Final = re.compile(
    rf"(?P<name>{_WORD}(?:[ \t]+(?:of|and|the|for|{_WORD}))+)[ \t]+\((?P<short>[A-Z][A-Za-z]{{1,9}})\)"
)
_ERROR_CODE: Final = re.compile(r"(?<![\w-])[A-Z][A-Z\d]+-\d+(?![\w-])")
_LINE_MARK: Final = re.compile(r"^[ \t>*+-]*(?:\d{1,3}[.)][ \t]+)?", re.M)
_ACRONYM: Final = re.compile(r"(?<![\w-])[A-Z][A-Z\d]{1,9}(?![\w-])")
_LOWER: Final = re.compile(r"(?<![\w-])[a-zà-öø-ÿ][\w'’-]*")
_LINKING: Final = frozenset({"of", "and", "the", "for", "de", "von", "van"})
_STEPS: Final = frozenset(words.STOP - _LINKING)
"""In a heading, these make a step or a sentence of it (Working from abroad), no name."""
_GENERIC_LIST: Final = """
    about abstract access accessing adding advanced agenda appendix april asked august background basics before best
    bug changelog chapter checklist conclusion configuration configuring contact contents contributing core date
    dates december definition definitions description details docs documentation english error errors example
    examples faq february features file files frequently friday further general german getting glossary goal goals guide
    guides handbook help home how important index info information installation installing instructions intro
    introduction issues january july june license licence limitations limits links list manual march may methods
    misc model monday more name names new note notes november october options other overview page part policies
    policy prerequisites problem problems procedure process purpose questions quickstart quick readme reference
    references related requirements resources results rules saturday scope section security see september setup
    solution solutions start started step steps structure summary sunday support table terms testing tests
    thursday tip tips title todo tools topics troubleshooting tuesday tutorial type types usage use using
    version versions warning wednesday week what when where who why workflow
"""
_GENERIC: Final = frozenset(_GENERIC_LIST.split())
"""Headings and bold words of any document: no names."""


class Catalogue:
    """All names, ready to be found. `names`: the canonical ones, sorted."""

    def __init__(self, spellings: Iterable[tuple[str, str, bool]] = ()) -> None:
        """`spellings`: (spelling, name, whether its case counts). Of two names with one spelling, the first has it."""
        self._automaton: Any = ahocorasick.Automaton()
        self._near: dict[tuple[int, str], list[tuple[str, str]]] = defaultdict(list)
        names: set[str] = set()
        for spelling, name, exact in spellings:
            key = _lower(spelling)
            if key in self._automaton or len(key) < 2:
                continue
            names |= {name} - {_NOBODY}
            self._automaton.add_word(key, (spelling, exact, name))
            if not exact and len(key) >= 8 and not any(char.isdigit() for char in key):
                self._near[(len(key.split()), key[0])].append((key, name))
        self.names = tuple(sorted(names))
        if names:
            self._automaton.make_automaton()

    @classmethod
    def build(cls, documents: "Iterable[Candidates]", listed: Iterable[str] = ()) -> "Catalogue":
        """From what the documents bring forward, and the lines of the list, which comes first."""
        return cls([*_unshared(_listed(listed)), *_named(list(documents))])

    def link(self, text: str) -> tuple[str, ...]:
        """The names that the text mentions, once each, in the order of their first mention. Of overlapping names the
        longest counts."""
        if not self.names:
            return ()
        lower = _lower(text)
        found = self._exact(text, lower)
        found += self._near_misses(lower, found)
        return tuple(dict.fromkeys(name for _, _, name in sorted(found) if name != _NOBODY))

    def _exact(self, text: str, lower: str) -> list[tuple[int, int, str]]:
        """(start, end, name) of each mention; no two overlap."""
        mentions = []
        for last, (spelling, exact, name) in self._automaton.iter(lower):
            start, end = last + 1 - len(spelling), last + 1
            if exact and text[start:end] != spelling:
                continue
            # "nightjars" are birds, whoever has a Project Nightjar.
            plural = not exact and len(spelling) >= 5 and _as_capital(text[start:end], spelling)
            if _bounded(lower, start, end, plural=plural):
                mentions.append((start, end, name))
        mentions.sort(key=lambda mention: (mention[0], -mention[1]))
        kept: list[tuple[int, int, str]] = []
        for mention in mentions:
            if not kept or mention[0] >= kept[-1][1]:
                kept.append(mention)
        return kept

    def _near_misses(self, lower: str, taken: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        """Names with one wrong, missing, swapped or added letter, where nothing was found."""
        spans = [match.span() for match, _ in zip(_WORDS.finditer(lower), range(MOST_FUZZY_WORDS), strict=False)]
        lengths = sorted({count for count, _ in self._near}, reverse=True)
        covered = {start for start, end in spans if any(a < end and start < b for a, b, _ in taken)}
        found = []
        for at, (start, _) in enumerate(spans):
            for count in lengths:
                window = spans[at : at + count]
                names = self._near.get((count, lower[start]))
                if not names or len(window) < count or any(each in covered for each, _ in window):
                    continue
                name = _nearest(lower[start : window[-1][1]], names)
                if name is not None:
                    found.append((start, window[-1][1], name))
                    covered.update(each for each, _ in window)
                    break
        return found


_WORDS: Final = re.compile(r"[^\W_](?:[\w'’-]*[^\W_])?")


def _nearest(text: str, names: Sequence[tuple[str, str]]) -> str | None:
    """The name that is one edit away, within one longer word; one that ends otherwise (policy, police) is another word.
    None where two names are as near."""
    near = {name for key, name in names if _is_near(key, text)}
    return near.pop() if len(near) == 1 else None


def _is_near(key: str, text: str) -> bool:
    if abs(len(key) - len(text)) > 1 or key[-1] != text[-1] or OSA.distance(key, text, score_cutoff=1) != 1:
        return False
    differing = [(a, b) for a, b in zip(key.split(), text.split(), strict=True) if a != b]
    return len(differing) == 1 and min(map(len, differing[0])) >= 5


def _as_capital(written: str, spelling: str) -> bool:
    """Whether every word that the spelling has with a capital is written with one."""
    return all(
        word[0].isupper() or not name[0].isupper() for word, name in zip(written.split(), spelling.split(), strict=True)
    )


def _bounded(lower: str, start: int, end: int, plural: bool) -> bool:
    """Whether lower[start:end] stands as words of its own; `plural`: an `s` after it still belongs to it."""
    if words.unspaced(lower[start:end]):
        return True
    if start > 0 and (lower[start - 1].isalnum() or lower[start - 1] in "_-"):
        return False
    if plural and lower[end : end + 1] == "s":
        end += 1
    return end >= len(lower) or not (lower[end].isalnum() or lower[end] == "_" or _JOINED.match(lower, end))


_JOINED: Final = re.compile(r"-\w")


def _lower(text: str) -> str:
    """Lower case, of the same length: positions stay those of the text."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _unshared(spellings: Iterable[tuple[str, str, bool]]) -> Iterator[tuple[str, str, bool]]:
    """Spellings of several names are nobody's: none is better than the wrong one."""
    given = list(spellings)
    owners: dict[str, set[str]] = defaultdict(set)
    for spelling, name, _ in given:
        owners[_lower(spelling)].add(_lower(name))
    for spelling, name, exact in given:
        yield spelling, _NOBODY if len(owners[_lower(spelling)]) > 1 else name, exact


def _listed(lines: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    for line in lines:
        spellings = [part.strip() for part in line.split("|")]
        if spellings[0] and not spellings[0].startswith("#"):
            yield from ((spelling, spellings[0], _by_case(spelling)) for spelling in spellings if spelling)


def _by_case(name: str) -> bool:
    """Whether a name is one only in its own case: acronyms (IT, not it) and identifiers."""
    if _ERROR_CODE.fullmatch(name):
        return False
    return (" " not in name and _IDENTIFIER.fullmatch(name) is not None) or _ACRONYM.fullmatch(name) is not None


def _named(documents: "Sequence[Candidates]") -> Iterator[tuple[str, str, bool]]:
    """The names that documents bring forward themselves, those with more evidence first."""
    common = frozenset().union(*(document.lower for document in documents))
    coded = [pair for document in documents for pair in document.coded]
    yield from ((name, name, False) for name, _ in coded)
    yield from _unshared((short, name, True) for name, short in coded)
    for document in documents:
        yield from ((name, name, _by_case(name)) for name in document.identifiers)
    read = [document.titled(common) for document in documents]
    titled = Counter(name for names, _ in read for name in names)
    for document, (names, _) in zip(documents, read, strict=True):
        whole = [_without_verb(name, titled) for name in names]
        yield from ((name, name, _by_case(name)) for name in [*whole, *document.headings, *document.bold])
    singles = Counter(name for _, alone in read for name in alone)
    stressed = {name for document in documents for name in document.stressed}
    for name, count in sorted(singles.items()):
        if count >= 2 or name in stressed:
            yield name, name, _by_case(name)


def _without_verb(name: str, titled: Counter[str]) -> str:
    """`Contact Maria Lopez`, where a sentence began, is Maria Lopez where the base knows her."""
    rest = name.partition(" ")[2]
    return rest if titled[rest] else name


class Candidates:
    """What in one document may be a name, read once; which of it is one, the other documents decide too."""

    def __init__(self, text: str) -> None:
        text = _FENCED.sub("\n", text)
        bare = _CODE.sub(" ", text)
        stressed = [plain(one or other).rstrip(" :.,") for one, other in _BOLD.findall(text)]
        headings = [plain(heading) for heading in _HEADING.findall(text)]
        self.lower = frozenset(map(sys.intern, _LOWER.findall(bare)))
        self.identifiers = [name for name in _CODE.findall(text) if _IDENTIFIER.fullmatch(name)] + _ERROR_CODE.findall(bare)
        self.headings = [name for name in headings if _is_name(name)]
        self.bold = [name for name in stressed if _is_name(name)]
        self.stressed = {*stressed, *headings}
        self.coded = [(name, short) for name, short in map(_expansion, _CODED.finditer(bare)) if name]
        prose = _LINE_MARK.sub("", _HEADING.sub("\n", bare)).replace("*", "")
        self._runs = [(match["start"] is not None, match["name"]) for match in _TITLED.finditer(prose)]
        self._words = len(prose.split())

    def titled(self, common: frozenset[str]) -> tuple[list[str], list[str]]:
        """Title Case names of several words, and single ones; none of the latter where most nouns have capitals. `common`:
        the words that the base also writes in lower case."""
        several, singles = [], []
        for at_start, run in self._runs:
            parts = [part.removesuffix("'s").removesuffix("’s") for part in run.split()]
            while parts and (parts[0].lower() in words.STOP or (at_start and _is_ordinary(parts[0], common))):
                parts, at_start = parts[1:], False
            while parts and parts[-1] in _LINKING:
                parts = parts[:-1]
            if 2 <= len(parts) <= 5 and not all(map(_ACRONYM.fullmatch, parts)):
                several.append(" ".join(parts))
            elif len(parts) == 1 and not at_start and _is_proper(parts[0], common):
                singles.append(parts[0])
        return several, singles if len(singles) <= 0.1 * self._words else []


def _is_name(name: str) -> bool:
    """Whether a heading or bold term of several words names something, and is no sentence and no step."""
    parts = name.split()
    if not 2 <= len(parts) <= 4 or not name[0].isupper() or not all(part[0].isalnum() for part in parts):
        return False
    if any(part.lower() in _STEPS for part in parts) or name[-1] in ".:;?!" or ":" in name or parts[0].lower() in _LINKING:
        return False
    return any(part.lower() not in _LINKING and part.lower() not in _GENERIC for part in parts)


def _is_ordinary(word: str, common: frozenset[str]) -> bool:
    """Whether a sentence that begins with this word may owe it the capital only."""
    return word.lower() in _GENERIC or word.lower() in common


def _is_proper(word: str, common: frozenset[str]) -> bool:
    """Whether one word is a name: capitalised, and nowhere in the base written small, in singular or plural."""
    low = word.lower()
    one = low.removesuffix("s")
    if len(word) <= 2 or not word[0].isupper() or low in words.STOP or {low, one} & _GENERIC:
        return False
    return common.isdisjoint((low, one, one + "s"))


def _expansion(match: re.Match[str]) -> tuple[str, str]:
    """(name, acronym) where the acronym's letters are the initials of the name's last words; else two empty strings."""
    short = match["short"]
    parts = match["name"].split()
    wanted = short.lower()
    for start in range(len(parts)):
        initials = "".join(part[0].lower() for part in parts[start:] if part not in _LINKING)
        if initials == wanted and parts[start] not in _LINKING:
            return " ".join(parts[start:]), short
    return "", ""
