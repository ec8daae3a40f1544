"""The names that a text mentions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.entities import Candidates, Catalogue

SUPPORT = (
    "# Support\n\nAsk the **Service Desk** or the Travel Desk. Tell Maria Lindqvist about it. Maria Lindqvist knows.\n\n"
    "## Parental leave\n\nParental leave is booked in **Tidebook**. We all use Tidebook here. The company pays.\n\n"
    "## Frequently asked questions\n\n## How do I print?\n\n## Working from abroad\n\n**Note:** it must be asked. "
    "**Must** not."
)
SECURITY = (
    "# Security\n\nThe Employee Assistance Programme (EAP) helps. Report to the Security Operations Centre (SOC).\n\n"
    "Set `drain_seconds` or `TIDE_FLAG_OVERRIDE`, run `tidectl`. Error BW-107 is about the clock. The VPN and a VPN.\n\n"
    "```\nprint Fake Name In Code\n```\n\nEmployees of the European Union pay. Contact Maria Lindqvist."
)
DOCUMENTS = [SUPPORT, SECURITY]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.build(map(Candidates, DOCUMENTS))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Who is Maria Lindqvist?", ("Maria Lindqvist",)),
        ("how long is parental leave, and is it booked in tidebook?", ("Parental leave", "Tidebook")),
        ("Ask the service desk's people", ("Service Desk",)),
        ("several Service Desks", ("Service Desk",)),
        ("What is the EAP?", ("Employee Assistance Programme",)),
        ("the employee assistance programme", ("Employee Assistance Programme",)),
        ("call SOC or soc", ("Security Operations Centre",)),
        ("drain_seconds and TIDE_FLAG_OVERRIDE", ("drain_seconds", "TIDE_FLAG_OVERRIDE")),
        ("I see BW-107!", ("BW-107",)),
        ("is the VPN down", ("VPN",)),
        ("maria lindquist", ("Maria Lindqvist",)),
        ("the Employe Assistance Programme", ("Employee Assistance Programme",)),
        ("Travel Desk, then Service Desk, then Travel Desk", ("Travel Desk", "Service Desk")),
    ],
)
def test_names_are_found(catalogue: Catalogue, text: str, names: tuple[str, ...]) -> None:
    assert catalogue.link(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "eap, soc and vpn in small letters are other words",
        "Drain_Seconds",
        "my_drain_seconds_too",
        "BW-1077",
        "the company must not print a note",
        "frequently asked questions",
        "working from abroad",
        "the travel disk",
        "grandparental leave",
        "Mario Lindgren",
        "Fake Name In Code",
        "",
    ],
)
def test_what_is_no_name_is_not_found(catalogue: Catalogue, text: str) -> None:
    assert catalogue.link(text) == ()


def test_no_verb_is_part_of_a_name_and_no_generic_heading_is_one(catalogue: Catalogue) -> None:
    assert set(catalogue.names) == {
        "BW-107",
        "Employee Assistance Programme",
        "European Union",
        "Maria Lindqvist",
        "Parental leave",
        "Security Operations Centre",
        "Service Desk",
        "TIDE_FLAG_OVERRIDE",
        "Tidebook",
        "Travel Desk",
        "VPN",
        "drain_seconds",
    }


def test_the_list_has_the_last_word_on_spelling() -> None:
    listed = ["# comment", "", "Travel Office | travel desk | the reisebüro", "IT"]
    catalogue = Catalogue.build(map(Candidates, DOCUMENTS), listed)
    assert catalogue.link("ask the Travel Desk or the Reisebüro") == ("Travel Office",)
    assert catalogue.link("does it help? IT does") == ("IT",)


def test_the_longest_of_overlapping_names_counts() -> None:
    catalogue = Catalogue.build([], ["Travel Desk", "Travel Desk Europe"])
    assert catalogue.link("the travel desk europe") == ("Travel Desk Europe",)


def test_names_in_unspaced_scripts_need_no_word_boundary() -> None:
    assert Catalogue.build([], ["東京支社"]).link("明日は東京支社に行く") == ("東京支社",)


def test_german_nouns_are_no_names() -> None:
    text = "Im Urlaub ist der Antrag bei der Leitung. " * 3 + "Der Urlaub und der Antrag. " * 3
    assert Catalogue.build([Candidates(text)]).names == ()


def test_without_names_nothing_is_found() -> None:
    assert Catalogue().link("anything") == ()
    assert Catalogue.build([Candidates("")]).link("anything") == ()


@given(st.lists(st.text(min_size=1, max_size=12), max_size=5), st.text(max_size=80))
def test_any_list_and_any_text_go_together(listed: list[str], text: str) -> None:
    catalogue = Catalogue.build([], listed)
    assert set(catalogue.link(text)) <= set(catalogue.names)


@given(st.sampled_from(["Maria Lindqvist", "Service Desk", "Employee Assistance Programme"]), st.text(max_size=20))
def test_a_name_between_spaces_is_always_found(name: str, around: str) -> None:
    assert name in Catalogue.build(map(Candidates, DOCUMENTS)).link(f"{around}. {name} .{around}")
