"""Street addresses as they are written in English, German, Dutch, French, Spanish, Portuguese and Italian.

A house number and a word for a street are asked for: a town alone, or "Abbey Road", is no address of a person's.
"""

import re
from typing import Final

from watchkeeper.serving.guards.patterns import Pattern

_NAME = r"[A-ZÀ-ÖØ-Þ][\w'.-]{0,24}"
_TOWN_NAME = r"[A-ZÀ-ÖØ-Þ][\w'-]{0,24}"
_ZIP_AND_TOWN = rf"(?:,?[ \t]+\d{{4,5}}[ \t]+{_TOWN_NAME}(?:[ \t]{_TOWN_NAME})?)?"

# "In 1969 Abbey Road was recorded": a year after such a word is no house number. It stands behind the number's first digit.
_NO_YEAR = (
    r"(?:(?!(?<=1)[5-9]\d\d\s|(?<=2)0\d\d\s)"
    r"|(?<!\b[IiOo][nf]\s.)(?<!\b[Bb]y\s.)(?<!ince\s.)(?<!ntil\s.)(?<!uring\s.)(?<!\b[Tt]he\s.))"
)
_SIDE = r"(?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.?[ \t]+)?"
_STREET = (
    r"(?:(?:St|Ave|Rd|Blvd|Ln|Dr|Ct|Pl|Sq|Ter|Pkwy|Hwy|Cres|Cir|Trl)\b\.?"
    r"|(?:Street|Avenue|Road|Boulevard|Lane|Drive|Court|Way|Place|Square|Terrace|Parkway|Highway|Crescent|Close|Circle|Trail"
    r"|Grove|Gardens|Mews|Alley|Plaza|Broadway|Turnpike|Quay)\b)"
)
_FLAT = r"(?:,?\s{1,3}(?:Apt|Apartment|Suite|Ste|Unit|Floor|Flat|Room|Rm)\b\.?[ \t]?#?[ \t]?\w{1,6}|,?[ \t]#[ \t]?\w{1,6})?"
_POSTCODE = r"(?:\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]?[ \t]?\d[A-Z]{2}|[A-Z]\d[A-Z][ \t]\d[A-Z]\d)\b"
_TOWN = rf"(?:[,\s]{{1,3}}{_NAME}(?:[ \t]{_NAME}){{0,2}})"
_ENGLISH = re.compile(
    rf"\d(?<![\w.#$€£:/-].){_NO_YEAR}\d{{0,5}}[A-Za-z]?(?:-\d{{1,4}})?[ \t]+{_SIDE}"
    rf"(?:{_NAME}[ \t]+|\d{{1,3}}(?:st|nd|rd|th)[ \t]+){{1,4}}?{_STREET}{_FLAT}"
    rf"(?:{_TOWN}{{0,2}}?[,\s]{{1,3}}(?:[A-Z]{{2,3}}[,\s]{{1,3}})?{_POSTCODE})?"
)

_GERMANIC = re.compile(
    r"[A-ZÄÖÜ](?<!\w.)(?:[\wäöüß.-]{1,30}?(?:straße|strasse|str\.|gasse|allee|platz|weg|damm|ufer|straat|laan|gracht|kade)"
    r"|[\wäöüß-]{1,30}[ \t](?:Straße|Strasse|Str\.|Allee|Platz|Weg))[ \t]\d{1,4}(?:[ \t]?[a-z])?\b"
    rf"{_ZIP_AND_TOWN}"
)

_OF = r"(?:(?:d[eou]s?|del|della|delle|dei|das|la|las|le|les|los|di|da|al)[ \t]|l'|d'){0,2}"
_NAMES = rf"{_OF}{_TOWN_NAME}(?:[ \t]{_OF}{_TOWN_NAME}){{0,3}}"
_FRENCH = re.compile(
    r"\d(?<![\w.-].)\d{0,3}(?:[ \t]?(?:bis|ter))?,?[ \t]"
    rf"(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Bb]d|[Pp]lace|[Cc]hemin|[Aa]llée|[Ii]mpasse|[Qq]uai)[ \t]{_NAMES}{_ZIP_AND_TOWN}"
)
_ROMANCE = re.compile(
    rf"(?<!\w)(?:(?:Calle|C/|Avenida|Avda\.?|Av\.|Paseo|Plaza|Rua|Praça|Carrer)[ \t]?{_NAMES},?[ \t]"
    rf"|(?:Via|Viale|Piazza|Corso)[ \t]{_NAMES},[ \t])(?:n[.º°]?[ \t]?)?\d{{1,4}}\b{_ZIP_AND_TOWN}"
)
_BOX = re.compile(r"\b(?:P\.?[ \t]?O\.?[ \t]?Box|Post Office Box|Postfach|PSC \d{1,5},? Box)[ \t]\d{1,6}\b", re.IGNORECASE)

_GERMANIC_NEEDS = ("str", "gasse", "allee", "platz", "weg", "damm", "ufer", "laan", "gracht", "kade")
_FRENCH_NEEDS = ("rue", "avenue", "boulevard", "bd", "place", "chemin", "allée", "impasse", "quai")
_ROMANCE_NEEDS = (
    *("calle", "c/", "avenida", "avda", "av.", "paseo", "plaza", "rua", "praça", "carrer"),
    *("via", "piazza", "corso"),
)
ADDRESSES: Final = (
    Pattern(category="ADDRESS", rule="address_english", regex=_ENGLISH),
    Pattern(category="ADDRESS", rule="address_germanic", regex=_GERMANIC, needs=_GERMANIC_NEEDS),
    Pattern(category="ADDRESS", rule="address_french", regex=_FRENCH, needs=_FRENCH_NEEDS),
    Pattern(category="ADDRESS", rule="address_romance", regex=_ROMANCE, needs=_ROMANCE_NEEDS),
    Pattern(category="ADDRESS", rule="post_box", regex=_BOX, needs=("box", "postfach")),
)
