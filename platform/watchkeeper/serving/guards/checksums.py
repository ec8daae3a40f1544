"""Check digits of cards, accounts and identity numbers: what makes a pattern of digits more than a guess.

Each function takes what a pattern matched, separators included, and says whether it can be such a number.
"""

import re
from datetime import date
from typing import Final

_NETWORKS: Final = (  # first digits and lengths that card networks use
    (re.compile(r"4"), (13, 16, 19)),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),  # Mastercard
    (re.compile(r"3[47]"), (15,)),  # American Express
    (re.compile(r"30[0-5]|3[689]"), (14, 16, 19)),  # Diners Club
    (re.compile(r"6011|64[4-9]|65"), (16, 19)),  # Discover
    (re.compile(r"35(?:2[89]|[3-8])"), (16, 19)),  # JCB
    (re.compile(r"62|81"), (16, 17, 18, 19)),  # UnionPay
    (re.compile(r"50|5[6-8]|6[37]"), (16, 18, 19)),  # Maestro
)


def digits(text: str) -> str:
    return "".join(character for character in text if "0" <= character <= "9")


def alphanumerics(text: str) -> str:
    return "".join(character for character in text.upper() if character.isascii() and character.isalnum())


def luhn(text: str) -> bool:
    """ISO/IEC 7812: cards, Canadian and Swedish numbers. A run of one digit only is no number."""
    numbers = [int(digit) for digit in reversed(digits(text))]
    doubled = (number * 2 for number in numbers[1::2])
    total = sum(numbers[::2]) + sum(number - 9 if number > 9 else number for number in doubled)
    return total % 10 == 0 and len(set(numbers)) > 1


def card(text: str) -> bool:
    """A card number by network, length and check digit."""
    number = digits(text)
    return any(prefix.match(number) and len(number) in lengths for prefix, lengths in _NETWORKS) and luhn(number)


def iban(text: str) -> bool:
    """ISO 13616: the remainder by 97 is 1. The pattern has seen to the country's length."""
    plain = alphanumerics(text)
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def ssn(text: str) -> bool:
    """US social security and taxpayer numbers: groups that were ever issued."""
    area, group, serial = (number := digits(text))[:3], number[3:5], number[5:]
    if area in {"000", "666"} or group == "00" or serial == "0000":
        return False
    return area < "900" or "50" <= group <= "99"


def dni(text: str) -> bool:
    """Spanish DNI and NIE: the last letter is a function of the number."""
    plain = alphanumerics(text)
    number = plain[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return plain[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


_ODD: Final = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21] * 2 + [2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23],
        strict=True,
    )
)


def codice_fiscale(text: str) -> bool:
    """Italian tax code: sixteen characters, the last one a checksum of the others."""
    plain = text.upper()
    even = sum(int(character, 36) - (0 if character.isdigit() else 10) for character in plain[1:15:2])
    return chr(ord("A") + (even + sum(_ODD[character] for character in plain[0:15:2])) % 26) == plain[15]


def cpf(text: str) -> bool:
    """Brazilian CPF: two check digits."""
    numbers = [int(digit) for digit in digits(text)]
    for length in (9, 10):
        rest = sum(number * (length + 1 - place) for place, number in enumerate(numbers[:length])) * 10 % 11 % 10
        if rest != numbers[length]:
            return False
    return len(set(numbers)) > 1


def nir(text: str) -> bool:
    """French social security number: the last two digits complete the first thirteen to a multiple of 97."""
    plain = alphanumerics(text).replace("2A", "19").replace("2B", "18")
    return int(plain[:13]) % 97 + int(plain[13:]) == 97


_VERHOEFF = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_TURN = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")


def aadhaar(text: str) -> bool:
    """Indian Aadhaar: Verhoeff's check digit."""
    check = 0
    for place, digit in enumerate(reversed(digits(text))):
        check = int(_VERHOEFF[check][int(_TURN[place % 8][int(digit)])])
    return check == 0


def resident_id(text: str) -> bool:
    """Chinese resident number: a date of birth and a check character."""
    plain = alphanumerics(text)
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(plain[:17]))
    return is_date(plain[6:14]) and "10X98765432"[total % 11] == plain[17]


def personnummer(text: str) -> bool:
    """Swedish personal number: a date and Luhn's check digit."""
    number = digits(text)[-10:]
    return is_date("20" + number[:6]) and luhn(number)


def rrn(text: str) -> bool:
    """Korean resident number: a date; numbers given out since 2020 carry no check digit."""
    return is_date(("20" if text[7] in "3478" else "19") + text[:6])


def nric(text: str) -> bool:
    """Singapore's NRIC and FIN: a weighted sum picks the last letter."""
    plain = text.upper()
    total = sum(int(digit) * weight for digit, weight in zip(plain[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    letters = {"S": "JZIHGFEDCBA", "T": "GFEDCBAJZIH", "F": "XWUTRQPNMLK", "G": "RQPNMLKXWUT"}[plain[0]]
    return letters[total % 11] == plain[8]


def is_date(text: str) -> bool:
    """Whether eight digits are a day, YYYYMMDD."""
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return False
    return True
