"""All of OpenAI's chat completions through a real gateway: tools, several answers, stop sequences, JSON. What the guards
say holds for every word that leaves, wherever in an answer it stands."""

import asyncio
import json
from typing import Any

import openai
import pydantic
import pytest
from gateway import Running, wait_until

pytestmark = [pytest.mark.models, pytest.mark.servers]

ABUSE = "You are a worthless idiot and I will find you and kill you, you piece of shit."
ASKED: Any = [{"role": "user", "content": "How many days of annual leave do I have?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "send_mail",
            "description": "Sends a mail.",
            "parameters": {"type": "object", "properties": {"to": {"type": "string"}, "text": {"type": "string"}}},
        },
    }
]


@pytest.fixture(autouse=True)
def _ordinary(ordinary: Running) -> None:
    """Every test begins with an upstream that gives ordinary answers."""


def calls(*arguments: str, size: int = 7) -> list[dict[str, Any]]:
    """An answer that calls `send_mail` so often, its arguments in pieces."""
    deltas: list[dict[str, Any]] = []
    for index, text in enumerate(arguments):
        function = {"name": "send_mail", "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]})
        for start in range(0, len(text), size):
            piece = {"index": index, "function": {"arguments": text[start : start + size]}}
            deltas.append({"tool_calls": [piece]})
    return deltas


class Got:
    """An answer as the client puts it together, plain or streamed."""

    def __init__(self, running: Running, *, stream: bool, messages: Any = ASKED, **options: Any) -> None:
        completions = running.client.chat.completions
        if stream:
            with completions.stream(model="watchkeeper", messages=messages, **options) as events:
                self.whole: Any = events.get_final_completion()
        else:
            self.whole = completions.create(model="watchkeeper", messages=messages, **options)
        self.choices = self.whole.choices
        self.message = self.choices[0].message
        self.record = running.record(self.whole.id.removeprefix("chatcmpl-"))
        self.generate = next(stage for stage in self.record.stages if stage.name == "generate").attributes


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_are_passed_through_and_logged(running: Running, stream: bool) -> None:
    wanted = {"to": "the whole team", "text": "Leave: 27 days"}
    running.script.choices = lambda body: [calls(json.dumps(wanted), json.dumps({"to": "me"}))]
    got = Got(running, stream=stream, tools=TOOLS, tool_choice="auto", parallel_tool_calls=True)
    assert [json.loads(call.function.arguments) for call in got.message.tool_calls] == [wanted, {"to": "me"}]
    assert [call.id for call in got.message.tool_calls] == ["call_0", "call_1"]
    assert got.choices[0].finish_reason == "tool_calls"
    assert not got.message.content
    assert "send_mail(" in got.record.output_text
    assert "the whole team" in got.record.output_text
    sent = running.script.bodies[-1]
    assert (sent["tools"], sent["tool_choice"], sent["parallel_tool_calls"]) == (TOOLS, "auto", True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("written", ['{"to": "hugo.secret@example.com"}', '{"to": "hugo.secret\\u0040example.com"}'])
def test_personal_data_in_a_call_do_not_leave(running: Running, written: str, stream: bool) -> None:
    running.script.choices = lambda body: [calls(written)]
    got = Got(running, stream=stream, tools=TOOLS)
    assert json.loads(got.message.tool_calls[0].function.arguments) == {"to": "[EMAIL]"}
    assert "hugo" not in str(got.record)
    assert got.record.action == "redact"


@pytest.mark.parametrize("stream", [False, True])
def test_a_card_number_in_a_call_leaves_as_a_label_in_json(running: Running, stream: bool) -> None:
    running.script.choices = lambda body: [calls('{"card": 4111111111111111, "count": 2}')]
    got = Got(running, stream=stream, tools=TOOLS)
    assert json.loads(got.message.tool_calls[0].function.arguments) == {"card": "[CARD]", "count": 2}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", ["arguments", "refusal", "reasoning_content"])
def test_abuse_beside_the_text_is_blocked(running: Running, field: str, stream: bool) -> None:
    answer = calls(json.dumps({"text": ABUSE})) if field == "arguments" else [{field: ABUSE[:30]}, {field: ABUSE[30:]}]
    running.script.choices = lambda body: [answer]
    raw = running.client.chat.completions.with_raw_response.create(model="watchkeeper", messages=ASKED, stream=stream)
    text = raw.http_response.read().decode() if stream else raw.text
    assert "idiot" not in text
    assert "send_mail" not in text
    assert '"finish_reason":"content_filter"' in text
    assert running.record(raw.headers["x-request-id"]).action == "block"


def test_a_call_of_an_earlier_answer_reaches_the_model_without_personal_data(running: Running) -> None:
    written = {"name": "send_mail", "arguments": '{"to": "hugo.secret@example.com"}'}
    call = {"id": "c", "type": "function", "function": written}
    messages = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sent to hugo.secret@example.com"},
    ]
    got = Got(running, stream=False, messages=messages, tools=TOOLS)
    assert "hugo" not in json.dumps(running.script.bodies)
    sent = running.script.bodies[-1]["messages"]
    assert json.loads(sent[-2]["tool_calls"][0]["function"]["arguments"]) == {"to": "[EMAIL]"}
    assert sent[-1]["tool_call_id"] == "c"
    assert "send_mail(" in got.record.prompt[-2].content
    assert "hugo" not in str(got.record)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", ["annual", ["xyz", "ys of an"]])
def test_an_answer_ends_at_a_stop_sequence_that_the_upstream_ignores(running: Running, stop: Any, stream: bool) -> None:
    got = Got(running, stream=stream, stop=stop)
    assert got.message.content == ("You have 27 days of" if stop == "annual" else "You have 27 da")
    assert got.choices[0].finish_reason == "stop"
    assert running.script.bodies[-1]["stop"] == ([stop] if isinstance(stop, str) else stop)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_its_limit_cut_off_is_rounded_off(running: Running, stream: bool) -> None:
    running.script.choices = lambda body: [[{"content": "You have 27 days. "}, {"content": "That is **a lo"}]]
    running.script.finish_reason = "length"
    raw = running.client.chat.completions.with_raw_response.create(model="watchkeeper", messages=ASKED, stream=stream)
    text = raw.http_response.read().decode() if stream else raw.text
    assert "That is **a lo**" in text
    assert '"finish_reason":"length"' in text


def test_the_official_clients_other_ways_in(running: Running) -> None:
    """Asynchronous, with a time-out of its own, retried when the upstream fails, and with what else it may send."""
    running.script.status = 500

    async def ask() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=5, timeout=30) as client:
            asked = asyncio.create_task(
                client.chat.completions.create(
                    model="watchkeeper",
                    messages=ASKED,
                    metadata={"team": "x"},
                    store=False,
                    reasoning_effort="low",
                    service_tier="auto",
                )
            )
            await asyncio.to_thread(wait_until, lambda: bool(running.script.bodies), "the first try")
            running.script.status = 200
            return await asked

    answer = asyncio.run(ask())
    assert answer.choices[0].message.content == "You have 27 days of annual leave."
    sent = running.script.bodies[-1]
    assert (sent["metadata"], sent["store"], sent["reasoning_effort"]) == ({"team": "x"}, False, "low")
    running.script.pause_s = 2.0
    with pytest.raises(openai.APITimeoutError):
        running.client.with_options(timeout=0.5).chat.completions.create(model="watchkeeper", messages=ASKED)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_as_many_answers_come_as_were_asked_for(running: Running, at_once: int, stream: bool) -> None:
    names = iter(["one", "two", "three", "four", "five", "six", "seven", "eight"])
    running.script.choices = lambda body: [
        [{"content": "Answer "}, {"content": f"{next(names)}."}]
        for _ in range(min(at_once, body.get("n", 1) + at_once // 5))
    ]
    got = Got(running, stream=stream, n=3, seed=7, **({"stream_options": {"include_usage": True}} if stream else {}))
    assert [choice.index for choice in got.choices] == [0, 1, 2]
    said = [choice.message.content for choice in got.choices]
    assert len(set(said)) == 3
    assert {choice.finish_reason for choice in got.choices} == {"stop"}
    assert all(text in got.record.output_text for text in said)
    asked = [(body.get("n", 1), body["seed"]) for body in running.script.bodies]
    assert asked == {1: [(3, 7), (2, 8), (1, 9)], 2: [(3, 7), (1, 9)], 5: [(3, 7)]}[at_once]
    assert got.whole.usage.completion_tokens == got.record.output_tokens == {1: 6, 2: 6, 5: 8}[at_once]


def test_one_answer_of_several_may_be_withheld(running: Running) -> None:
    running.script.choices = lambda body: [[{"content": "You have 27 days of leave."}], [{"content": ABUSE}]]
    got = Got(running, stream=False, n=2)
    assert [choice.finish_reason for choice in got.choices] == ["stop", "content_filter"]
    assert [choice.message.content for choice in got.choices] == ["You have 27 days of leave.", ""]
    assert got.record.action == "block"


def test_one_stream_of_several_may_be_withheld(running: Running) -> None:
    running.script.choices = lambda body: [[{"content": "You have 27 days of leave."}], [{"content": ABUSE}]]
    chunks = list(running.client.chat.completions.create(model="watchkeeper", messages=ASKED, n=2, stream=True))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    said = ["".join(choice.delta.content or "" for choice in choices if choice.index == index) for index in (0, 1)]
    assert said == ["You have 27 days of leave.", ""]
    assert [(choice.index, choice.finish_reason) for choice in choices if choice.finish_reason] == [
        (0, "stop"),
        (1, "content_filter"),
    ]
    assert running.record(chunks[0].id.removeprefix("chatcmpl-")).action == "block"


def logprobs(*words: str) -> list[dict[str, Any]]:
    """An answer of such tokens, each with its log-probability."""
    tokens = [{"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": []} for word in words]
    return [{"content": token["token"], "logprobs": [token]} for token in tokens]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_leave_with_their_text(running: Running, stream: bool) -> None:
    running.script.choices = lambda body: [logprobs("You ", "have ", "27 ", "days", ".")]
    got = Got(running, stream=stream, logprobs=True, top_logprobs=0)
    assert [token.token for token in got.choices[0].logprobs.content] == ["You ", "have ", "27 ", "days", "."]
    assert running.script.bodies[-1]["logprobs"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_what_was_redacted_do_not_leave(running: Running, stream: bool) -> None:
    running.script.choices = lambda body: [logprobs("Write ", "to ", "hugo", "@example.com", ".")]
    raw = running.client.chat.completions.with_raw_response.create(
        model="watchkeeper", messages=ASKED, stream=stream, logprobs=True
    )
    text = raw.http_response.read().decode() if stream else raw.text
    assert "hugo" not in text
    assert '"token":"to "' in text
    assert '"logprobs":"left out from where the text was changed"' in text


class Leave(pydantic.BaseModel):
    days: int
    kind: str


WHOLE = '{"days": 27, "kind": "annual"}'


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("first", "how", "asked"),
    [(WHOLE, "valid", 1), (f"```json\n{WHOLE[:-1]},}}\n```", "mended", 1), ("You have 27 days.", "repaired", 2)],
)
def test_the_clients_parsed_answers_are_what_was_asked_for(
    running: Running, first: str, how: str, asked: int, stream: bool
) -> None:
    answers = iter([first, WHOLE])
    running.script.choices = lambda body: [[{"content": next(answers)}]]
    completions = running.client.chat.completions
    if stream:
        with completions.stream(model="watchkeeper", messages=ASKED, response_format=Leave) as events:
            whole: Any = events.get_final_completion()
    else:
        whole = completions.parse(model="watchkeeper", messages=ASKED, response_format=Leave)
    assert whole.choices[0].message.parsed == Leave(days=27, kind="annual")
    assert len(running.script.bodies) == asked
    assert running.script.bodies[0]["response_format"]["json_schema"]["name"] == "Leave"
    record = running.record(whole.id.removeprefix("chatcmpl-"))
    assert next(stage for stage in record.stages if stage.name == "generate").attributes["json"] == how
    assert record.attempts == asked


def test_json_that_cannot_be_had_says_so(running: Running) -> None:
    got = Got(running, stream=False, response_format={"type": "json_object"})
    assert got.message.content == "You have 27 days of annual leave."
    about = got.whole.model_extra["watchkeeper"]["json"]
    assert about == {"valid": False, "how": "invalid", "error": "it is not valid JSON"}
    assert got.generate["json"] == "invalid"


@pytest.mark.parametrize("stream", [False, True])
def test_personal_data_in_an_answer_in_json_leave_json(running: Running, stream: bool) -> None:
    running.script.choices = lambda body: [
        [{"content": '{"mail": "hugo.secret\\u0040example'}, {"content": '.com", "n": 4111111111111111}'}]
    ]
    got = Got(running, stream=stream, response_format={"type": "json_object"})
    assert json.loads(got.message.content) == {"mail": "[EMAIL]", "n": "[CARD]"}


def test_a_schema_that_is_none_is_refused_before_anybody_is_asked(running: Running) -> None:
    broken: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wizard"}}}
    with pytest.raises(openai.BadRequestError) as error:
        Got(running, stream=False, response_format=broken)
    assert error.value.param == "response_format"
    assert running.script.bodies == []
