"""What goes to a model whose window is too small for all: the oldest stays behind, and nothing loses its other half."""

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.record import Message, Source
from watchkeeper.release import BUILTIN, Parameters
from watchkeeper.serving.fitting import IMAGE_TOKENS, LEAST_ANSWER, exchanges, fit
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.request import ChatRequest, Refused, Turn
from watchkeeper.serving.stages.route import messages
from watchkeeper.serving.tokens import MESSAGE_TOKENS, TokenCounter

COUNTER = TokenCounter()
WORD = "word "


def turn(role: str, text: str = WORD * 20, **others: Any) -> Turn:
    return Turn(role, text, {"role": role, "content": text, **others})


def called(*ids: str) -> Turn:
    calls = [{"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}} for name in ids]
    return turn("assistant", "", tool_calls=calls)


def result(name: str) -> Turn:
    return turn("tool", tool_call_id=name)


def journey(turns: list[Turn], *, max_tokens: int = 50, template: str = "Be kind.", **others: Any) -> Journey:
    release = msgspec.structs.replace(BUILTIN, template=template, parameters=Parameters(max_tokens=max_tokens))
    request = ChatRequest(model="watchkeeper", turns=tuple(turns), forwarded=others.pop("forwarded", {}))
    return Journey("0" * 32, 1, request, release, time.perf_counter, 0.0, turns=turns, **others)


def talk(rounds: int) -> list[Turn]:
    return [turn for number in range(rounds) for turn in (said("user", number), said("assistant", number))][:-1]


def said(role: str, number: int) -> Turn:
    return turn(role, f"{role} {number} " + WORD * 20)


def test_what_fits_goes_as_it_is() -> None:
    trip = journey(talk(5))
    sent = fit(trip, messages, COUNTER, 8192, "oldest")
    assert sent == messages(trip)
    assert trip.prompt_tokens == COUNTER.count([message.content for message in sent])
    assert (trip.answer_tokens, dict(trip.left_out)) == (50, {})


def test_the_oldest_exchanges_stay_behind_and_room_is_kept_for_the_answer() -> None:
    trip = journey([turn("system", "Speak plainly."), *talk(20)])
    sent = fit(trip, messages, COUNTER, 300, "oldest")
    assert trip.left_out["turns"] > 0
    assert sent[0] == Message("system", "Be kind.\n\nSpeak plainly.")
    assert sent[1].role == "user"
    assert sent[-1].content.startswith("user 19 ")
    assert trip.prompt_tokens + 50 <= 300
    assert trip.prompt_tokens == COUNTER.count([message.content for message in sent])
    one_more = 2 * (COUNTER.text(said("assistant", 10).text) + MESSAGE_TOKENS)
    assert trip.prompt_tokens + one_more + 50 > 300, "more stayed behind than had to"


def test_where_turns_may_not_stay_behind_the_request_is_refused() -> None:
    trip = journey(talk(20))
    with pytest.raises(Refused, match="has about") as refused:
        fit(trip, messages, COUNTER, 300, "refuse")
    assert (refused.value.status, refused.value.code) == (400, "context_length_exceeded")
    assert trip.prompt_tokens > 300


@pytest.mark.parametrize("truncate", ["oldest", "refuse"])
def test_what_we_added_ourselves_stays_behind_whatever_the_setting(truncate: Any) -> None:
    stored = tuple(message for _ in range(6) for message in (Message("user", WORD * 40), Message("assistant", WORD * 40)))
    sources = tuple(Source(f"a#{n}", "A", 0.9, f"{n} " + WORD * 60) for n in range(3))
    trip = journey([turn("user")], history=stored, sources=sources)
    sent = fit(trip, messages, COUNTER, 300, truncate)
    assert trip.history == ()
    assert [source.id for source in trip.sources] == ["a#0", "a#1"]
    assert trip.left_out == {"stored": 12, "passages": 1}
    assert "[1] A: 0 " in sent[-1].content
    assert trip.prompt_tokens + 50 <= 300


@pytest.mark.parametrize("window", [60, 120])
def test_what_has_to_stay_and_does_not_fit_is_refused(window: int) -> None:
    with pytest.raises(Refused, match=f"window here has {window}"):
        fit(journey([*talk(3), turn("user", WORD * 100)]), messages, COUNTER, window, "oldest")


def test_an_answer_may_come_out_shorter_rather_than_that_half_a_window_is_kept_for_it() -> None:
    trip = journey([turn("user", WORD * 100)], max_tokens=4096)
    fit(trip, messages, COUNTER, 256, "oldest")
    assert trip.answer_tokens == 256 - trip.prompt_tokens >= LEAST_ANSWER


def test_images_calls_and_descriptions_of_tools_count() -> None:
    plain, with_image = journey([turn("user")]), journey([msgspec.structs.replace(turn("user"), images=("ab",))])
    tools = [{"type": "function", "function": {"name": "look", "description": WORD * 100}}]
    with_tools = journey([turn("user")], forwarded={"tools": tools})
    for trip in (plain, with_image, with_tools):
        fit(trip, messages, COUNTER, 8192, "oldest")
    assert with_image.prompt_tokens == plain.prompt_tokens + IMAGE_TOKENS
    assert with_tools.prompt_tokens > plain.prompt_tokens + 100


def test_a_round_of_tools_stays_whole_and_the_newest_goes() -> None:
    turns = [turn("user"), called("a"), result("a"), turn("assistant"), turn("user")]
    turns += [called("b", "c"), result("b"), result("c"), called("d"), result("d")]
    assert exchanges(turns) == [range(4), range(5, 8)]


def test_results_that_come_late_hold_together_what_lies_between() -> None:
    turns = [turn("user"), turn("assistant"), turn("user"), called("a"), turn("user"), result("a"), turn("user")]
    assert exchanges(turns) == [range(2), range(2, 6)]
    assert exchanges([turn("user"), called("a"), turn("user"), result("a")]) == []


IDS = ["a", "b", "c"]
TURNS = st.lists(
    st.one_of(
        st.sampled_from([turn("user"), turn("assistant"), turn("system", "Be brief.")]),
        st.lists(st.sampled_from(IDS), min_size=1, max_size=2, unique=True).map(lambda ids: called(*ids)),
        st.sampled_from(IDS).map(result),
    ),
    min_size=1,
    max_size=14,
)


@given(TURNS, st.integers(60, 500))
def test_no_call_is_parted_from_its_result_and_what_must_stay_does(turns: list[Turn], window: int) -> None:
    numbered = [msgspec.structs.replace(each, body={**each.body, "name": str(at)}) for at, each in enumerate(turns)]
    trip = journey(list(numbered))
    try:
        sent = fit(trip, messages, COUNTER, window, "oldest")
    except Refused:
        assert trip.prompt_tokens + min(50, LEAST_ANSWER) > window
        return
    assert trip.prompt_tokens + (trip.answer_tokens or 0) <= window
    kept = {int(each.body["name"]) for each in trip.turns}
    assert len(sent) == 1 + sum(each.role != "system" for each in trip.turns)
    users = [at for at, each in enumerate(turns) if each.role == "user"]
    must = {at for at, each in enumerate(turns) if each.role == "system"} | set(users[-1:]) | {len(turns) - 1}
    assert must <= kept
    issued: dict[str, int] = {}
    for at, each in enumerate(turns):
        for call in each.body.get("tool_calls", ()):
            issued[call["id"]] = at
        caller = issued.get(each.body.get("tool_call_id", ""))
        if caller is not None:
            assert (caller in kept) == (at in kept)


@pytest.mark.timeout(20)
def test_time_is_linear() -> None:
    turns = [each for number in range(5_000) for each in (turn("user"), called(f"{number}"), result(f"{number}"))]
    trip = journey(turns)
    fit(trip, messages, COUNTER, 1000, "oldest")
    assert trip.left_out["turns"] > 14_000
