"""pii: personal data that has a form of its own: mail addresses, phone, card and account numbers, identity numbers, IP and
street addresses, dates of birth.

Patterns with check digits where there are any, and the words before where there are none: a wrong find takes something out
of a text that somebody needed. Does not know names of people: they have no form, and a recogniser for them costs 20 ms and
is often wrong. Not run on retrieved passages: a knowledge base holds the contact data that its readers ask for. Presidio's
recognisers were left: importing them loads spaCy (5.5 s of CPU, 430 MB).
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final, Literal

from watchkeeper.record import Target
from watchkeeper.serving.guard import Finding, Subject
from watchkeeper.serving.guards.identities import IBAN, NAMED_NUMBERS, NUMBERS
from watchkeeper.serving.guards.patterns import Families, Family, Pattern
from watchkeeper.serving.guards.phones import PHONES
from watchkeeper.serving.guards.places import ADDRESSES

_FLAGS = re.ASCII | re.IGNORECASE
# Letters of scripts that put spaces between words; in Chinese or Japanese an address stands right beside the words.
_LETTER = r"A-Za-z0-9\u00c0-\u1fff"
_EMAIL = re.compile(
    rf"(?<![{_LETTER}_%+@])(?!git@[\w.-]+:)[{_LETTER}_][{_LETTER}_.%+'-]{{0,126}}@(?:[{_LETTER}](?:[{_LETTER}_-]{{0,61}}[{_LETTER}])?\.){{1,8}}"
    rf"(?:xn--[a-z0-9-]{{2,20}}|[A-Za-z\u00c0-\u1fff]{{2,24}})(?![{_LETTER}_@])",
    re.IGNORECASE,
)
_SPELLED_EMAIL = re.compile(
    rf"(?<![{_LETTER}_%+@.])[{_LETTER}_][{_LETTER}_.%+-]{{0,63}}\s?[\[({{<]\s?at\s?[\])}}>]\s?[{_LETTER}-]{{1,63}}"
    rf"(?:(?:\.|\s?[\[({{<]\s?dot\s?[\])}}>]\s?)[{_LETTER}-]{{2,63}}){{1,4}}",
    re.IGNORECASE,
)
_PASSWORD_BEFORE_HOST = re.compile(r"://[^\s/@:]{1,40}:[^\s/@]{0,40}$")
_FILES = re.compile(
    r"\.(?:png|jpe?g|gif|svg|webp|css|[jt]sx?|html?|json|xml|ya?ml|txt|pdf|cfg|ini|toml|log)$", re.IGNORECASE
)

_IPV4 = re.compile(r"\d(?<![\w.-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", _FLAGS)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-F]{0,4}:){2,7}[0-9A-F]{0,4}(?![\w:])", _FLAGS)
_MAC = re.compile(r"(?<![\w:-])[0-9A-F]{2}(?:([:-])[0-9A-F]{2})(?:\1[0-9A-F]{2}){4}(?![\w:-])", _FLAGS)
_NOBODYS_IP = re.compile(r"(?:127|0|255)\.")
_LOOKS_LIKE_A_VERSION = re.compile(r"\d\.\d\.\d\.\d$")
_VERSION_WORDS = re.compile(
    r"(?:\b(?:versions?|ver|v|releases?|build|section|chapter|rule|article|upgrade[sd]? to)|§|[<>=~^]=?)\W{0,2}$",
    re.IGNORECASE,
)
_NETWORK_WORDS = re.compile(
    r"\b(?:ips?|ipv4|ip address(?:es)?|host|server|dns|ping|gateway|router|resolver)\b.{0,12}$", _FLAGS
)

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_DATE = re.compile(
    rf"\b(?:\d{{1,2}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}|\d{{4}}[/.-]\d{{1,2}}[/.-]\d{{1,2}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH},? \d{{4}}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})\b",
    _FLAGS,
)
_BIRTH_WORDS = re.compile(
    r"\b(?:date of birth|birth ?date|d\.?o\.?b|my birthday|i was born|geburtsdatum|date de naissance|fecha de nacimiento)"
    r"(?:\W{1,3}(?:is|was|on|it's|it is))*[\W_]{0,4}$",
    re.IGNORECASE,
)


def _is_mail(text: str) -> bool:
    return _FILES.search(text) is None


def _is_somebodys_ip(text: str) -> bool:
    octets = text.split(".")
    return all(str(int(octet)) == octet and int(octet) < 256 for octet in octets) and not _NOBODYS_IP.match(text)


def _is_clearly_an_ip(text: str) -> bool:
    return _is_somebodys_ip(text) and not _LOOKS_LIKE_A_VERSION.match(text)


def _is_ipv6(text: str) -> bool:
    """An address that no clock and no name in C++ could be."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return text.count(":") >= 3 and any(character.isdigit() for character in text) and not address.is_loopback


_AT_IN_BRACKETS = re.compile(r"at\s?[\])}>]", re.IGNORECASE)
_COUNTRY_AND_CHECK = re.compile(r"\d(?<=[A-Z]{2}.)\d", _FLAGS)
_SEVEN_DIGITS = re.compile(r"\d(?:\D{0,3}\d){6}")
FAMILIES: Final = (
    Family(
        signs=("@",),
        patterns=(
            Pattern(category="EMAIL", rule="email", regex=_EMAIL, check=_is_mail, never_after=_PASSWORD_BEFORE_HOST),
        ),
    ),
    Family(
        signs=("]", ")", "}", ">"),
        gate=lambda look: _AT_IN_BRACKETS.search(look.text) is not None,
        patterns=(Pattern(category="EMAIL", rule="email_spelled_out", regex=_SPELLED_EMAIL),),
    ),
    Family(digits=5, patterns=NAMED_NUMBERS),
    Family(digits=2, gate=lambda look: _COUNTRY_AND_CHECK.search(look.text) is not None, patterns=(IBAN,)),
    Family(digits=7, gate=lambda look: _SEVEN_DIGITS.search(look.text) is not None, patterns=(*NUMBERS, *PHONES)),
    Family(
        digits=4,
        gate=lambda look: look.text.count(".") >= 3,
        patterns=(
            Pattern(category="IP", rule="ipv4", regex=_IPV4, check=_is_clearly_an_ip, never_after=_VERSION_WORDS),
            Pattern(
                category="IP",
                rule="ipv4_after_word",
                regex=_IPV4,
                check=_is_somebodys_ip,
                after=_NETWORK_WORDS,
            ),
        ),
    ),
    Family(
        digits=1,
        signs=(":",),
        gate=lambda look: "::" in look.text or look.text.count(":") >= 7,
        patterns=(Pattern(category="IP", rule="ipv6", regex=_IPV6, check=_is_ipv6),),
    ),
    Family(
        signs=(":", "-"),
        gate=lambda look: look.text.count(":") >= 5 or look.text.count("-") >= 5,
        patterns=(Pattern(category="MAC", rule="mac", regex=_MAC),),
    ),
    Family(
        digits=1,
        patterns=(
            Pattern(
                category="BIRTH_DATE",
                rule="date_of_birth",
                regex=_DATE,
                after=_BIRTH_WORDS,
                needs=("birth", "born", "dob", "d.o.b", "do.b", "d.ob", "geburt", "naissance", "nacimiento"),
            ),
            *ADDRESSES,
        ),
    ),
)
_PATTERNS: Final = Families(FAMILIES)


class Pii:
    """Spans of personal data, without a score: a check digit or a shape decided."""

    name = "pii"
    version = "1"
    targets: tuple[Target, ...] = ("prompt", "output")
    on_error: Literal["open", "closed"] = "closed"
    reads_embedding = False

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        return _PATTERNS.find(subject.text)
