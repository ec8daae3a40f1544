"""Personal data: what has a form is found and redacted, what only looks like it is left alone."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.record import Action
from watchkeeper.serving.guard import Judgement
from watchkeeper.serving.guards.pii import Pii
from watchkeeper.serving.redact import redact

FOUND = [
    ("Write to jane.doe+news@mail.example.co.uk today.", "Write to [EMAIL] today."),
    ("jörg@müller.de and 'a@b.io'", "[EMAIL] and '[EMAIL]'"),
    ("john [at] example [dot] com", "[EMAIL]"),
    ("邮箱是zhang@example.com谢谢", "邮箱是[EMAIL]谢谢"),
    ("Call +1 (415) 555-2671 or 415.555.2671 x12.", "Call [PHONE] or [PHONE]."),
    ("tel:+14155552671", "tel:[PHONE]"),
    ("+49 30 901820, +33 1 42 68 53 00; 00 44 20 7946 0958", "[PHONE], [PHONE]; [PHONE]"),
    ("Ring 020 7946 0958 or 06 12 34 56 78", "Ring [PHONE] or [PHONE]"),
    ("My number is 4155552671.", "My number is [PHONE]."),
    ("Can someone call me on 9472 7916?", "Can someone call me on [PHONE]?"),
    ("Card 4111 1111 1111 1111, exp 12/26", "Card [CARD], exp 12/26"),
    ("5500-0000-0000-0004 and 378282246310005", "[CARD] and [CARD]"),
    ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[CARD]"),
    ("lost my card 180016070420458", "lost my card [CARD]"),
    ("DE89 3704 0044 0532 0130 00 is mine", "[IBAN] is mine"),
    ("iban: nl91abna0417164300", "iban: [IBAN]"),
    ("SSN 078-05-1120", "SSN [SSN]"),
    ("my social security number is 536904399", "my social security number is [SSN]"),
    ("from 10.20.30.40 and 2001:db8:85a3::8a2e:370:7334", "from [IP] and [IP]"),
    ("ping 8.8.8.8", "ping [IP]"),
    ("00:1B:44:11:3A:B7", "[MAC]"),
    ("DNI 12345678Z, RSSMRA85T10A562S, 529.982.247-25", "DNI [NATIONAL_ID], [NATIONAL_ID], [NATIONAL_ID]"),
    ("2345 6789 0124 and 11010519491231002X", "[NATIONAL_ID] and [NATIONAL_ID]"),
    ("1 85 05 78 006 084 91, 850709-9805, S1234567D", "[NATIONAL_ID], [NATIONAL_ID], [NATIONAL_ID]"),
    ("NHS number: 943 476 5919", "NHS number: [NATIONAL_ID]"),
    ("my passport number is X1234567", "my passport number is [PASSPORT]"),
    ("Driver's license number is D1234567", "Driver's license number is [LICENSE]"),
    ("account number 12345678", "account number [BANK_ACCOUNT]"),
    ("DOB: 03/04/1985; I was born on March 4, 1985", "DOB: [BIRTH_DATE]; I was born on [BIRTH_DATE]"),
    ("I live at 221B Baker Street, London NW1 6XE.", "I live at [ADDRESS]."),
    ("to 1600 Pennsylvania Ave NW, Washington, DC 20500", "to [ADDRESS]"),
    ("Musterstraße 12, 10115 Berlin", "[ADDRESS]"),
    ("12 rue de la Paix, 75002 Paris", "[ADDRESS]"),
    ("Calle Mayor 15, Madrid", "[ADDRESS], Madrid"),
    ("P.O. Box 1234", "[ADDRESS]"),
    ("4111\u200b1111\u200b1111\u200b1111", "[CARD]"),
    ("ｊｏ＠ｅｘａｍｐｌｅ．ｃｏｍ", "[EMAIL]"),
    ("jo\u00adhn@exаmple.com", "[EMAIL]"),  # a soft hyphen and a Cyrillic a
    ("٤١١١ ١١١١ ١١١١ ١١١١", "[CARD]"),
]

LEFT_ALONE = [
    "version 1.2.3.4; upgrade to 10.2.3.4; section 4.2.1.3",
    "released 2024-05-06T12:34:56.789Z at 12:30:45, 01-02-2023",
    "order 4155552671, order #415-555-2671, tracking number 1Z999AA10123456784",
    "git@github.com:org/repo.git and icon@2x.png",
    "def f(a): return a@b  # 1234567",
    "std::vector<int> a; foo::bar::baz",
    "0x1234567890abcdef, 550e8400-e29b-41d4-a716-446655440000",
    "ISBN 978-3-16-148410-0 and 0-306-40615-2",
    "3.14159265358979323846, 6.62607015e-34, 10.1000/182",
    "1,000,000,000 dollars or 1 000 000 000",
    "127.0.0.1, 0.0.0.0, 255.255.255.0",
    "In 1969 Abbey Road was released; the 3 Best Places",
    "a 16:9 screen of 1920x1080 at 60fps; the phone costs 1299 dollars",
    '{"id": 4111111111111112}',
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    "pip install torch==2.13.0.1",
    "Abraham Lincoln was born on February 12, 1809",
    "the tin 12345 can, 12345678A",
    "postgres://user:[PASSWORD]@db.example.com/x",
    "[EMAIL] [PHONE] [CARD]",
]


@pytest.mark.parametrize(("text", "clean"), FOUND)
@pytest.mark.parametrize("target", ["prompt", "output"])
def test_personal_data_is_redacted(judged: Callable[..., Judgement], target: str, text: str, clean: str) -> None:
    judgement = judged(Pii(), text, target)
    assert redact(text, judgement.spans)[0] == clean
    assert all(verdict.action == "redact" for verdict in judgement.verdicts)


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_only_looks_like_it_stays(action: Callable[..., Action], text: str) -> None:
    assert action(Pii(), text) == "pass"


@given(
    st.text("abcyz .,;\n\u200b", max_size=40),
    st.sampled_from(["jane@example.com", "4111111111111111", "415-555-2671", "078-05-1120", "DE89370400440532013000"]),
)
def test_it_is_found_wherever_it_stands(judged: Callable[..., Judgement], around: str, value: str) -> None:
    text = f"{around} {value} {around}"
    assert value not in redact(text, judged(Pii(), text).spans)[0]
