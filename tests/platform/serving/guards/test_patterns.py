"""The gates before the patterns save time only: whatever a pattern matches passes them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.serving.guards import pii, secrets
from watchkeeper.serving.guards.patterns import MOST, Families, Family, Pattern
from watchkeeper.serving.redact import Redactor

FAMILIES = (*secrets.FAMILIES, *pii.FAMILIES)
ALL = Families(FAMILIES)
LATIN = st.characters(max_codepoint=0xFF)
"""Beyond are letters that are taken for others (a Kelvin sign for a k): those the scan copy resolves."""
EACH = [(family, pattern) for family in FAMILIES for pattern in family.patterns]


@pytest.mark.parametrize(
    ("family", "pattern"), EACH, ids=[f"{number}-{pattern.rule}" for number, (_, pattern) in enumerate(EACH)]
)
@given(data=st.data(), before=st.sampled_from(("", "It is ", "é: ", "(“")), after=st.sampled_from(("", " and", "\n”, “x")))
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
def test_whatever_a_pattern_finds_passes_its_gates(
    family: Family, pattern: Pattern, data: st.DataObject, before: str, after: str
) -> None:
    text = before + data.draw(st.from_regex(pattern.regex, fullmatch=True, alphabet=LATIN)) + after
    if pattern.after is not None:
        text = data.draw(st.from_regex(pattern.after, fullmatch=True, alphabet=LATIN)) + text
    if next(pattern.spans(text), None) is not None:
        look = ALL.look(text)
        assert look.words or look.digits or look.long
        assert family.passes(look)
        assert not pattern.needs or look.has(pattern.needs)


def test_the_order_of_patterns_is_that_of_their_families() -> None:
    assert max(len(family.patterns) for family in FAMILIES) < MOST


@pytest.mark.parametrize(
    ("text", "digits", "long"),
    [
        ("", 0, False),
        ("In 1969, or ٣٣ of them", 6, False),
        ("a" * 15 + " " + "b" * 15, 0, False),
        ("sk-" + "a" * 13, 0, True),
        ("développement é", 0, False),
        ("lone \ud800 1", 1, False),
    ],
)
def test_what_is_seen_at_a_glance(text: str, digits: int, long: bool) -> None:
    look = ALL.look(text)
    assert (look.digits, look.long) == (digits, long)


def test_an_account_number_needs_few_digits() -> None:
    assert Redactor()("Pay ME53FI74SRQ2WFY3GASFXT today") == ("Pay [IBAN] today", {"IBAN": 1})
