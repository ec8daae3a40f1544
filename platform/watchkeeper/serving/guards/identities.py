"""Numbers that states, banks and doctors give to people: by their check digits, or by the word before them."""

import re
from collections.abc import Callable
from typing import Final

from watchkeeper.serving.guards import checksums
from watchkeeper.serving.guards.patterns import AFTER_NAME, OTHER_NUMBER, Pattern

_FLAGS = re.ASCII | re.IGNORECASE
_START = r"(?<![\w.+/#$-])"
_STARTED = r"(?<![\w.+/#$-].)"  # the same, behind the first character
_END = r"(?![\w@]|[-./]\w)"
_LENGTHS: Final = {  # characters of an IBAN, by country
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN = re.compile(
    r"(?<![A-Z0-9])(?=[A-Z]{2}[0-9]{2})(?:"
    + "|".join(
        rf"(?:{countries.replace(' ', '|')})[0-9]{{2}}(?:[ -]?[A-Z0-9]){{{length - 4}}}"
        for length, countries in _LENGTHS.items()
    )
    + r")(?![A-Z0-9])",
    _FLAGS,
)

# With groups or without; alone such a number may be anything that happens to pass, so some ask for a word before.
_CARD = re.compile(
    r"(?<![\w.+-])(?:\d{4}(?P<a>[ .-])\d{4}(?P=a)\d{4}(?P=a)\d{4}(?:(?P=a)\d{3})?|\d{4}(?P<b>[ .-])\d{6}(?P=b)\d{4,5}"
    r"|\d(?:[ -]\d){12,18}|\d{13,19})(?!\w|[-.]\d)",
    _FLAGS,
)
_CARD_BEFORE_MORE = re.compile(r"(?<![\w.+-])\d{4}(?P<a>[ .-])\d{4}(?P=a)\d{4}(?P=a)\d{4}(?!\w)", _FLAGS)
_ANY_CARD = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){11,18}(?!\w|[-.]\d)", _FLAGS)
_CARD_WORDS = re.compile(r"\b(?:cards?|visa|mastercard|amex|american express|maestro|cc)\b[^.!]{0,24}$", _FLAGS)
_SSN_WORDS = re.compile(r"\b(?:ssn|social security|itin)\b[^.!]{0,16}$", _FLAGS)

_NAMED = re.compile(r"(?<![\w-])[A-Z]{0,6}\d[A-Z0-9]{0,17}(?:[ -][A-Z0-9]{0,3}\d[A-Z0-9]{0,8}){0,5}(?![\w@])", _FLAGS)
"""Groups of letters and digits, each with a digit: what stands after "passport number"."""


def _has_digits(text: str) -> bool:
    return len(checksums.digits(text)) >= 5


def _after(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words}){AFTER_NAME}", re.IGNORECASE)


def _named(category: str, rule: str, words: str, *needs: str) -> Pattern:
    return Pattern(category=category, rule=rule, regex=_NAMED, check=_has_digits, after=_after(words), needs=needs)


def _national(rule: str, regex: str, check: Callable[[str], bool] | None, *needs: str) -> Pattern:
    return Pattern(
        category="NATIONAL_ID",
        rule=rule,
        regex=re.compile(regex + _END, re.ASCII),
        check=check,
        never_after=OTHER_NUMBER,
        needs=needs,
    )


IBAN: Final = Pattern(category="IBAN", rule="iban_mod97", regex=_IBAN, check=checksums.iban)
NUMBERS: Final = (
    Pattern(category="CARD", rule="card_luhn", regex=_CARD, check=checksums.card, never_after=OTHER_NUMBER),
    Pattern(category="CARD", rule="card_luhn", regex=_CARD_BEFORE_MORE, check=checksums.card, never_after=OTHER_NUMBER),
    Pattern(category="CARD", rule="card_after_word", regex=_ANY_CARD, check=checksums.luhn, after=_CARD_WORDS),
    Pattern(
        category="SSN",
        rule="ssn",
        regex=re.compile(r"(?<![\w.+/-])\d{3}-\d{2}-\d{4}(?![\w@]|[-./]\w)", re.ASCII),
        check=checksums.ssn,
        never_after=OTHER_NUMBER,
        needs=("-",),
    ),
    Pattern(
        category="SSN",
        rule="ssn_after_word",
        regex=re.compile(r"(?<![\w.+-])\d{3}([ .-]?)\d{2}\1\d{4}(?!\w|[-.]\d)", re.ASCII),
        after=_SSN_WORDS,
    ),
    _national("es_dni", _START + r"(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]", checksums.dni),
    _national("it_codice_fiscale", _START + r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]", checksums.codice_fiscale),
    _national("br_cpf", _START + r"\d{3}\.\d{3}\.\d{3}-\d\d", checksums.cpf, "-"),
    _national(
        "fr_nir", r"[12]" + _STARTED + r" ?\d\d ?(?:0[1-9]|1[0-2]) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d", checksums.nir
    ),
    _national("in_aadhaar", r"[2-9]" + _STARTED + r"\d{3}([ -])\d{4}\1\d{4}(?![ -]?\d)", checksums.aadhaar),
    _national("cn_resident_id", r"[1-8]" + _STARTED + r"\d{16}[\dXx]", checksums.resident_id),
    _national("se_personnummer", _START + r"(?:19|20)?\d{6}[-+]\d{4}", checksums.personnummer, "-", "+"),
    _national("kr_rrn", r"\d" + _STARTED + r"\d{5}-[1-8]\d{6}", checksums.rrn, "-"),
    _national("sg_nric", r"[STFG]" + _STARTED + r"\d{7}[A-Z]", checksums.nric),
)
"""In the order in which they are believed where two find the same."""

NAMED_NUMBERS: Final = (
    _national("uk_nino", r"[A-CEGHJ-PR-TW-Z]" + _STARTED + r"[A-CEGHJ-NPR-TW-Z] \d\d \d\d \d\d [A-D]", None),
    _named("PASSPORT", "passport_after_word", "passport|reisepass|pasaporte|passeport", "pass", "pasa"),
    _named("LICENSE", "license_after_word", "driver'?s?'? licen[cs]e|driving licen[cs]e|führerschein", "licen", "führer"),
    _named(
        "NATIONAL_ID",
        "identity_after_word",
        "national id|national insurance|nino|nhs|identity card|id card|personal id|tax(?:payer)? id|tax file"
        "|social insurance|medicare|pesel|bsn|steuer-?id|personalausweis|aadhaar|aadhar|pan card|curp|dni|cpf"
        r"|(?:ni|tin|tfn|sin|pan|nif|nie)(?=:|\W{1,3}(?:number|no|nr|is)\b)",
        "national", "nino", "ni ", "nhs", "identity", "id card", "personal id", "tax", "tin ", "tfn", "sin ", "social",
        "medicare", "pesel", "bsn", "steuer", "ausweis", "aadha", "pan ", "curp", "nif", "nie ", "dni", "cpf",
    ),
    _named(
        "BANK_ACCOUNT",
        "account_after_word",
        r"(?:bank|checking|savings|routing|account|acct|konto|sort)\W{1,3}(?:account|acct|number|nr|no|code)"
        "|kontonummer",
        "account", "acct", "routing", "konto", "sort code",
    ),
)  # fmt: skip
