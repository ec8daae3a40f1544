"""Phone numbers: four shapes, from the one that speaks for itself to the one that needs a word before it.

International (`+…`, possible by its country's plan), North American (`415-555-2671`: separators, no check, since examples
and test numbers are rarely valid), national (leading 0, grouped), and any group of digits after a word such as
"phone" or "call me at".
"""

import re
from typing import Final

import phonenumbers

from watchkeeper.serving.guards.patterns import OTHER_NUMBER, Pattern

_WORDS = re.compile(
    r"\b(?:(?:tele|cell ?|mobile ?|work ?|home ?|i|smart)?phones?|tel|mobile|cell|fax|desk|office|direct|whats ?app|hotline"
    r"|helpline|my (?:\w+ )?number|telefon[oe]?|téléphone|telefonnummer|rufnummer|handy|móvil|celular|portable|gsm"
    r"|(?:call|text|reach|ring|dial|contact|sms|message|answer)(?:s|ed|ing)?(?: (?:me|us|him|her|them|back))?)"
    r"(?:\W{1,3}(?:number|no|nr|line))?(?:\W{1,3}(?:is|was|at|on|to|under|es|est|ist))?[\W_]{0,4}$",
    re.IGNORECASE,
)
_START = r"(?<![\w.+/#$€£:-])"
_END = r"(?![\w@%]|[-.:/,]\d|(?-i:-[A-Z]{3,7}\b))"  # no part of a longer number, or of 1-800-FLOWERS
_EXTENSION = r"(?:[ ,]{0,2}(?:x|ext\.?|extension|#)[ .:]?\d{1,6})?"
_FLAGS = re.ASCII | re.IGNORECASE
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+/$-])(?:\+?1[-. ]{0,2})?(?:\([2-9]\d\d\)[ .-]{0,2}|[2-9]\d\d[-.])\d{3}[-. ]\d{4}" + _EXTENSION + _END, _FLAGS
)
_INTERNATIONAL = re.compile(r"(?<![\w.+/])(?:\+|\(\+|00 ?)[1-9](?:[ ./()-]{0,3}\d){6,14}" + _EXTENSION + _END, _FLAGS)
_NATIONAL = re.compile(_START + r"(?<!\d )\(?0[1-9](?:[ ./()-]{0,2}\d){7,12}" + _END, _FLAGS)
_ANY = re.compile(r"(?<![\w.+/#$€£-])\(?\d(?:[ ./()-]{0,2}\d){6,14}" + _EXTENSION + _END, _FLAGS)
_DATED = re.compile(r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4})(?!\d)")
_GROUP = re.compile(r"\d+")


def _is_international(text: str) -> bool:
    number = "+" + text.replace("(0)", "").lstrip("(+0 ")
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


def _is_national(text: str) -> bool:
    """Nine to twelve digits in two to five groups, since ten in a row may be anything, and no date."""
    groups = _GROUP.findall(text)
    return 2 <= len(groups) <= 5 and 9 <= sum(map(len, groups)) <= 12 and _is_no_date(text)


def _is_no_date(text: str) -> bool:
    return _DATED.search(text) is None


PHONES: Final = (
    Pattern(category="PHONE", rule="phone_north_american", regex=_NORTH_AMERICAN, never_after=OTHER_NUMBER),
    Pattern(
        category="PHONE",
        rule="phone_international",
        regex=_INTERNATIONAL,
        check=_is_international,
        never_after=OTHER_NUMBER,
    ),
    Pattern(category="PHONE", rule="phone_national", regex=_NATIONAL, check=_is_national, never_after=OTHER_NUMBER),
    Pattern(category="PHONE", rule="phone_after_word", regex=_ANY, check=_is_no_date, after=_WORDS),
)
