"""The numbers in a text, read so that two ways of writing one compare equal: 1,000 and 1000, 25% and 25 percent.

A number may be read in more than one way (1.000 is one, or a thousand in Berlin): it is a set of readings, and two numbers
agree when they share one. Identifiers with digits in them (E1042, v2) are words, not numbers. Spelled numbers: English.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from watchkeeper.serving import words

_DIGITS: Final = re.compile(
    r"(?<![\w.,:/-])(?P<date>\d{1,4}(?P<by>[./-])\d{1,2}(?P=by)\d{1,4})(?![\w])"
    r"|(?<![\w.,:])(?P<time>\d{1,2}[:.]\d{2})\s?(?P<timehalf>[ap]\.?m\b)"
    r"|(?<![\w.,:])(?P<clock>\d{1,2}:\d{2})(?!\d)"
    r"|(?<![A-Za-zÀ-ӿ])(?<!\d)(?<!\d[.,])"
    r"(?P<number>\d{1,3}(?:[,.'’_\u00a0\u202f]\d{3})+(?!\d)(?:[.,]\d+)?|\d{1,2}(?: \d{3})+(?!\d)|\d+(?:[.,]\d+)?)"
    r"(?:\s?(?P<scale>thousand|million|billion|bn|mn|[kKmM])(?![^\W\d_])|\s?(?P<half>[apAP]\.?[mM])(?![^\W\d_]))?"
)
_SCALES: Final = {"k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9}
_TO_NINETEEN: Final = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen
"""
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
SPELLED: Final = {
    **{word: value for value, word in enumerate(_TO_NINETEEN.split())},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), start=2)},
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 1_000_000,
}
"""English number words and their values."""
_SPELLING: Final = re.compile(
    rf"(?<![\w-])(?:{'|'.join(SPELLED)})(?:(?:[ -]|\sand\s)(?:{'|'.join(SPELLED)}))*(?![\w])", re.I
)
_UNIT: Final = re.compile(r"[\s-]*(%|[€$£¥]|[^\W\d_]+)")
_CURRENCY: Final = re.compile(r"([€$£¥]|\b(?:usd|eur|gbp|chf))\s?\Z", re.I)
_ONE: Final = r"(?<![\w.])[€$£]?(\d{1,12}(?:\.\d{1,6})?)(?![\d.]\d)"
_BETWEEN: Final = re.compile(rf"{_ONE}\s?[%\w]?\s?(?:-|–|—|\bto\b|\bbis\b|\bà\b)\s?[€$£]?(\d{{1,12}}(?:\.\d{{1,6}})?)")
_BETWEEN_AND: Final = re.compile(rf"\bbetween {_ONE}\s?[%\w]?\s?and [€$£]?(\d{{1,12}}(?:\.\d{{1,6}})?)")
_FROM: Final = re.compile(rf"(?:\b(?:more than|over|above|at least|exceed\w*|from|after|minimum of)|>=?|≥)\s?{_ONE}")
_UNTIL: Final = re.compile(
    rf"(?:\b(?:less than|under|below|at most|up to|within|until|no more than|maximum of)|<=?|≤)\s?{_ONE}"
)

Reading = float | str


class Number(msgspec.Struct, frozen=True):
    """`written`: as it stands. `readings`: what it may mean; a time of day is `t` and minutes. `unit`: the stem of the
    word (or the sign) beside it, empty for none. `spelled`: in words."""

    written: str
    readings: frozenset[Reading]
    unit: str = ""
    spelled: bool = False


def find(text: str) -> list[Number]:
    """All numbers, digits first, then spelled ones. Signs are not read: -5 is 5."""
    return [*_written_in_digits(text), *_spelled(text)]


def ranges(text: str) -> list[tuple[float, float, str]]:
    """(low, high, unit) of the spans a text speaks of: `2 to 5 years`, `between 2 and 5`, `more than 5`, `up to 10`."""
    plain = text.lower().replace(",", "")
    pairs = [*_BETWEEN.finditer(plain), *_BETWEEN_AND.finditer(plain)]
    found = [(float(match[1]), float(match[2]), _unit(plain, match)) for match in pairs]
    found += [(float(match[1]), float("inf"), _unit(plain, match)) for match in _FROM.finditer(plain)]
    found += [(0.0, float(match[1]), _unit(plain, match)) for match in _UNTIL.finditer(plain)]
    return found


def _written_in_digits(text: str) -> Iterator[Number]:
    for match in _DIGITS.finditer(text):
        if match["date"]:
            for part in re.split(r"[./-]", match["date"]):
                yield Number(part, frozenset({float(part)}))
        elif match["time"]:
            yield Number(match["time"], _time(match["time"], match["timehalf"]))
        elif match["clock"]:
            yield Number(match["clock"], _time(match["clock"], None))
        else:
            yield Number(match["number"], _readings(match), _unit(text, match))


def _readings(match: re.Match[str]) -> frozenset[Reading]:
    values = _values(match["number"])
    if match["half"] and len(match["number"]) <= 2:  # whole hours; `1,000 am` is no time
        return frozenset(values) | _time(match["number"], match["half"])
    if match["scale"]:
        scale = match["scale"].lower()
        scaled = {value * _SCALES[scale] for value in values}
        return frozenset(scaled if len(scale) > 1 else scaled | values)  # 5 m may be five metres
    return frozenset(values)


def _values(written: str) -> set[float]:
    """What digits with separators may mean: the last separator is a decimal one, or groups thousands, or both may be."""
    digits = re.sub(r"[ '’_\u00a0\u202f]", "", written)
    separators = [char for char in digits if char in ".,"]
    if not separators:
        return {float(digits)}
    last = separators[-1]
    values = set()
    if separators.count(last) == 1:
        values.add(float(digits.replace("," if last == "." else ".", "").replace(last, ".")))
    if len(digits.rpartition(last)[2]) == 3 and len(set(separators)) == 1:
        values.add(float(digits.replace(last, "")))
    return values


def _time(written: str, half: str | None) -> frozenset[Reading]:
    hours, _, minutes = written.replace(".", ":").partition(":")
    hour, minute = int(hours), int(minutes or 0)
    if half is not None:
        hour = hour % 12 + (12 if half.lower().startswith("p") else 0)
    same: set[Reading] = {f"t{hour * 60 + minute}"}
    return frozenset(same if minute else same | {float(int(hours))})


def _unit(text: str, match: re.Match[str]) -> str:
    before = _CURRENCY.search(text, max(0, match.start() - 5), match.start())
    after = _UNIT.match(text, match.end())
    unit = before[1] if before else after[1] if after else ""
    names = {
        "percent": "%",
        "per": "%",
        "pct": "%",
        "usd": "$",
        "eur": "€",
        "gbp": "£",
        "dollars": "$",
        "euros": "€",
        "pounds": "£",
    }
    low = unit.lower()
    return names.get(low, "" if low in words.STOP else words.stem(words.fold(low)))


def _spelled(text: str) -> Iterator[Number]:
    for match in _SPELLING.finditer(text):
        after = _UNIT.match(text, match.end())
        unit = words.stem(words.fold(after[1])) if after and after[1].lower() not in words.STOP else ""
        yield Number(match[0], frozenset({float(_value(match[0]))}), unit, spelled=True)


def _value(phrase: str) -> int:
    total = part = 0
    for word in re.findall(r"[a-z]+", phrase.lower()):
        value = SPELLED.get(word, 0)
        if value >= 1000:
            total, part = total + max(part, 1) * value, 0
        elif value == 100:
            part = max(part, 1) * 100
        else:
            part += value
    return total + part
