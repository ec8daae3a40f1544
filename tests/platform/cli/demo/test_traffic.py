"""The demo's traffic: the same every time, as many turns as asked for, every kind written down, and a mix that shifts."""

from collections import Counter

import pytest

from watchkeeper.cli.demo.traffic import answers, plan, written


@pytest.mark.parametrize("requests", [1, 30, 100, 333])
def test_as_many_turns_as_asked_and_the_same_every_time(requests: int) -> None:
    planned = plan(requests, 0)
    assert sum(len(conversation.turns) for conversation in planned) == requests
    assert planned == plan(requests, 0)
    assert planned != plan(requests, 1)


def test_a_few_hundred_prompts_of_every_kind_are_written() -> None:
    groups = written()
    prompts = [prompt for group in groups.values() for prompt in group["prompts"]]
    assert sum(1 if isinstance(prompt, str) else len(prompt) for prompt in prompts) > 200
    asked_for = "handbook no_answer follow_ups languages code noisy personal_data secrets abuse injection"
    assert set(asked_for.split()) <= groups.keys()


def test_after_the_first_part_the_mix_shifts_to_bills_and_stays() -> None:
    first, second, third = (Counter(conversation.kind for conversation in plan(300, part)) for part in (0, 1, 2))
    for later in (second, third):
        assert first["handbook"] > later["handbook"] * 2
        assert later["billing"] > first["billing"] * 10
        assert later["billing"] > 0.35 * sum(later.values())
    assert plan(300, 1) != plan(300, 2)


def test_every_question_about_a_bill_has_its_answer() -> None:
    billing = written()["billing"]
    assert set(billing["prompts"]) == answers().keys()
    assert all(answer.strip() for answer in answers().values())
