"""All guards together: each has a policy, survives any text, says the same twice, and takes linear time."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.record import Action
from watchkeeper.release import DEFAULT_POLICIES
from watchkeeper.serving.guard import Guard, Judgement
from watchkeeper.serving.guards import guards
from watchkeeper.settings import Guards, Settings

ALL: tuple[Guard, ...] = guards(Settings(guards=Guards(denied_topics={"gambling": ("sports betting",)})))
NAMES = [guard.name for guard in ALL]

# Beginnings of what the guards look for, over and over, and words at the end that make them look.
PATHOLOGICAL = [
    *(
        "a",
        "1",
        "1 ",
        "a@",
        "1.1.",
        "4111 ",
        "+1",
        "12 Main ",
        "password=",
        "eyJ",
        "://a:a@",
        "\ud800",
        "é",
        "\u200b1",
        '"',
    ),
    *("-----BEGIN PRIVATE KEY-----\nAAAAAAAAAAAAAAAAA", "ignore previous ", "reveal your ", "1gn0re ", "i g ", "? "),
    *(
        "women are very ",
        "vaccines a b ",
        "how to make a ",
        "write a sex ",
        "\U000e0041",
        "x\u0301\u0316",
        "QUJD" * 7 + " ",
    ),
]
LAST = " bomb suicide child women are lazy vaccine moon prompt instruction jailbreak mode limits decode 1 jane@example.io"


def test_every_policy_has_its_guard() -> None:
    assert sorted(NAMES) == sorted(DEFAULT_POLICIES)


@pytest.mark.parametrize("guard", ALL, ids=NAMES)
def test_the_guards_against_leaks_and_attacks_fail_closed(guard: Guard) -> None:
    assert guard.on_error == ("closed" if guard.name in {"pii", "secrets", "injection"} else "open")
    assert guard.version


@pytest.mark.parametrize("guard", ALL, ids=NAMES)
@given(text=st.text(st.characters(codec=None), max_size=60), embedded=st.booleans())
@settings(max_examples=60)
def test_no_text_breaks_a_guard(judged: Callable[..., Judgement], guard: Guard, text: str, embedded: bool) -> None:
    for target in guard.targets:
        judgement = judged(guard, text, target, embedded=embedded, support=0.5)
        assert all(verdict.rule in {"no_embedding"} for verdict in judgement.verdicts if verdict.category == "error")
        assert all(0 <= start < end <= len(text) for start, end, _ in judgement.spans)
        assert judgement == judged(guard, text, target, embedded=embedded, support=0.5)


@pytest.mark.parametrize("unit", PATHOLOGICAL)
def test_long_texts_take_linear_time(action: Callable[..., Action], bounded: Callable[..., None], unit: str) -> None:
    short, long = (unit * (size // len(unit)) + LAST for size in (6_000, 24_000))
    for guard in ALL:
        works = (partial(action, guard, text, guard.targets[0], embedded=True) for text in (long, short))
        bounded(*works, what=guard.name)
