"""The notation of rules: spaces, any words, names."""

import pytest

from watchkeeper.serving.guards import rules


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("a b", "a b", True),
        ("a b", "a -- b", True),
        ("a b", "ab", False),
        ("a b", "a" + "." * 9 + "b", False),
        (r"\ba ~ b\b", "a b", True),
        (r"\ba ~ b\b", "a one two's three four five b", True),
        (r"\ba ~ b\b", "a 1 2 3 4 5 6 b", False),
        ("(?:a )?b", "b", True),
        ("{drop} it", "leave it", True),
        ("{drop} it", "keep it", False),
        ("a\n|b", "b", True),
    ],
)
def test_a_pattern_reads_as_it_says(pattern: str, text: str, found: bool) -> None:
    assert bool(rules.compiled(pattern, {"drop": "{leave}|omit", "leave": "leave"}).search(text)) == found


@pytest.mark.parametrize("file", ["injection.toml", "bias.toml", "dangers.toml"])
def test_every_rule_can_match_what_it_needs(file: str) -> None:
    """A rule without `needs` would never be tried; one with an empty entry always would."""
    assert all(rule.needs and all(rule.needs) for rule in rules.load(file, "any"))
