"""Check digits: the number passes, and with one digit changed it does not."""

from collections.abc import Callable

import pytest

from watchkeeper.serving.guards import checksums

NUMBERS = [
    (checksums.luhn, "4111 1111 1111 1111"),
    (checksums.card, "3782-822463-10005"),
    (checksums.iban, "GB29 NWBK 6016 1331 9268 19"),
    (checksums.dni, "12345678Z"),
    (checksums.dni, "X1234567L"),
    (checksums.codice_fiscale, "RSSMRA85T10A562S"),
    (checksums.cpf, "529.982.247-25"),
    (checksums.nir, "1 85 05 78 006 084 91"),
    (checksums.aadhaar, "2345 6789 0124"),
    (checksums.resident_id, "11010519491231002X"),
    (checksums.personnummer, "850709-9805"),
    (checksums.nric, "S1234567D"),
]


@pytest.mark.parametrize(("check", "number"), NUMBERS)
def test_a_changed_digit_is_noticed(check: Callable[[str], bool], number: str) -> None:
    assert check(number)
    place = max(place for place, character in enumerate(number[:-1]) if character.isdigit())
    changed = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
    assert not check(changed)


@pytest.mark.parametrize(
    ("number", "issued"),
    [("078-05-1120", True), ("000-12-3456", False), ("666-12-3456", False), ("123-00-4567", False), ("900-70-1234", True)],
)
def test_social_security_numbers_have_groups_that_are_issued(number: str, issued: bool) -> None:
    assert checksums.ssn(number) == issued


def test_zeros_are_no_card() -> None:
    assert not checksums.luhn("0000 0000 0000 0000")


@pytest.mark.parametrize(
    ("number", "real"), [("900101-1234567", True), ("901301-1234567", False), ("040229-3234567", True)]
)
def test_korean_numbers_begin_with_a_date(number: str, real: bool) -> None:
    assert checksums.rrn(number) == real
