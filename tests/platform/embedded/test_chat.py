"""The chat server as OpenAI's own client and a plain HTTP client see it."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from starlette.applications import Starlette

from watchkeeper.embedded.answer import Event, Sampling
from watchkeeper.embedded.chat import Chat
from watchkeeper.embedded.checkpoint import Checkpoint, load
from watchkeeper.embedded.generation import Generator, Job

pytestmark = pytest.mark.models

NAME = "tiny"
QUEUE = 16
HELLO = [{"role": "user", "content": "Hello"}]


class Watched(Generator):
    """A generator whose answers never end by themselves, and whose jobs can be looked at."""

    jobs: list[Job]

    def submit(self, prompt: Any, sampling: Sampling, deliver: Callable[[Event], None]) -> Job:
        job = super().submit(prompt, sampling, deliver)
        self.jobs.append(job)
        return job


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return load(str(tiny))


@pytest.fixture(scope="module")
def generator(checkpoint: Checkpoint) -> Watched:
    generator = Watched(checkpoint.model, ends=())
    generator.jobs = []
    return generator


@pytest.fixture(scope="module")
def url(
    checkpoint: Checkpoint, generator: Watched, serving: Callable[[Starlette], AbstractContextManager[str]]
) -> Iterator[str]:
    with serving(Chat(NAME, checkpoint, generator, max_queue=QUEUE).application()) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def ask(client: openai.OpenAI, **more: Any) -> Any:
    create: Any = client.chat.completions.create
    return create(**{"model": NAME, "messages": HELLO, "max_tokens": 20, "seed": 4} | more)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_answer_has_openais_shape(client: openai.OpenAI, checkpoint: Checkpoint) -> None:
    answer = ask(client)
    assert answer.object == "chat.completion"
    assert answer.model == NAME
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    prompt = len(checkpoint.prompt([("user", "Hello")]))
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": prompt,
        "completion_tokens": 20,
        "total_tokens": prompt + 20,
        "prompt_tokens_details": {"cached_tokens": answer.usage.prompt_tokens_details.cached_tokens},
    }


def test_a_stream_is_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    *told, usage = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in told)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in told] == [None] * (len(told) - 1) + ["length"]
    assert usage.choices == []
    assert usage.usage.completion_tokens == whole.usage.completion_tokens
    assert usage.usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in told)


def test_a_stream_ends_with_done_and_without_usage_unless_asked(url: str) -> None:
    body = {"model": NAME, "messages": HELLO, "max_tokens": 3, "stream": True}
    response = requests.post(f"{url}/chat/completions", json=body, timeout=60)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert all(event.startswith("data: ") for event in events[:-1])
    assert events[-2:] == ["data: [DONE]", ""]
    assert '"usage"' not in response.text


def test_a_stop_sequence_ends_an_answer_before_itself(client: openai.OpenAI) -> None:
    full = ask(client, max_tokens=40).choices[0].message.content
    stop = full[10:12]
    for stops in (stop, ["never there, this one", stop]):
        answer = ask(client, max_tokens=40, stop=stops)
        assert answer.choices[0].message.content == full[: full.index(stop)]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens < 40


def test_parameters_reach_the_model(client: openai.OpenAI) -> None:
    def text(**more: Any) -> str:
        return str(ask(client, **more).choices[0].message.content)

    assert text(temperature=1.5) == text(temperature=1.5)
    assert text(temperature=1.5) != text(temperature=1.5, seed=5)
    assert text(temperature=0, seed=1) == text(temperature=0, seed=2) == text(top_p=0, seed=3)
    assert ask(client, max_tokens=9, max_completion_tokens=5).usage.completion_tokens == 5


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_to_one_request_are_those_that_their_seeds_give(client: openai.OpenAI, stream: bool) -> None:
    single = [ask(client, seed=seed).choices[0].message.content for seed in (4, 5, 6)]
    if stream:
        texts, ends = ["", "", ""], 0
        for chunk in ask(client, n=3, stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                ends += choice.finish_reason == "length"
            usage = chunk.usage
        assert ends == 3
    else:
        answer = ask(client, n=3)
        texts, usage = [choice.message.content for choice in answer.choices], answer.usage
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert texts == single
    assert usage.completion_tokens == 60


def test_each_token_is_told_with_how_likely_it_was(client: openai.OpenAI, checkpoint: Checkpoint) -> None:
    answer = ask(client, temperature=0, logprobs=True, top_logprobs=3)
    told = answer.choices[0].logprobs.content
    assert len(told) == 20
    for token in told:
        assert token.logprob <= 0
        assert [top.logprob for top in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)
        # Greedy: the likeliest is the one that was taken.
        assert (token.token, token.logprob) == (token.top_logprobs[0].token, token.top_logprobs[0].logprob)
        assert len(token.top_logprobs) == 3
        assert token.bytes is None or bytes(token.bytes).decode() == token.token
    streamed = [
        token
        for chunk in ask(client, temperature=0, logprobs=True, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert [token.token for token in streamed] == [token.token for token in told]
    assert all(token.top_logprobs == [] for token in streamed)
    assert ask(client).choices[0].logprobs is None


def test_tokens_that_a_stop_sequence_cut_off_are_not_told_of(client: openai.OpenAI) -> None:
    full = ask(client, max_tokens=40).choices[0].message.content
    choice = ask(client, max_tokens=40, stop=full[10:12], logprobs=True).choices[0]
    assert len("".join(token.token for token in choice.logprobs.content)) == len(choice.message.content)


def test_what_was_read_before_is_said_in_the_usage(client: openai.OpenAI) -> None:
    turns = [{"role": "user", "content": "A long beginning that is the same each time. " * 4}]
    first, again = (ask(client, messages=turns, max_tokens=1).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens < 32
    assert again.prompt_tokens - 17 <= again.prompt_tokens_details.cached_tokens < again.prompt_tokens


def figures(url: str) -> dict[str, float]:
    lines = requests.get(url.removesuffix("/v1") + "/metrics", timeout=10).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_metrics_count_answers_tokens_and_times(url: str, client: openai.OpenAI, generator: Watched) -> None:
    before = figures(url)
    usage = ask(client, messages=[{"role": "user", "content": "Count me"}], n=2).usage
    after = figures(url)

    def more(name: str) -> float:
        return after[f"watchkeeper_model_{name}"] - before.get(f"watchkeeper_model_{name}", 0)

    assert more('answers_total{finish="length"}') == 2
    assert more('tokens_total{kind="output"}') == usage.completion_tokens == 40
    assert more('tokens_total{kind="input"}') + more('tokens_total{kind="cached"}') == 2 * usage.prompt_tokens
    assert more("time_to_first_token_seconds_count") == more("time_per_token_seconds_count") == 2
    assert more("time_to_first_token_seconds_sum") > 0
    assert after["watchkeeper_model_waiting"] == 0
    generator.jobs.clear()
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(ask, client, max_tokens=400, n=12)
        until(lambda: len(generator.jobs) == 12 and generator.jobs[0].generated > 2)
        now = figures(url)
        assert now["watchkeeper_model_running"] == 8
        assert now["watchkeeper_model_waiting"] == 4
        too_many = requests.post(f"{url}/chat/completions", json={"model": NAME, "messages": HELLO, "n": 5}, timeout=60)
        assert too_many.status_code == 503
        going.result()


def test_text_parts_are_a_text(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert ask(client, messages=[{"role": "user", "content": parts}]).choices == ask(client).choices


def test_several_clients_are_answered_at_once(client: openai.OpenAI) -> None:
    single = [ask(client, seed=seed).choices for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        crowd = list(pool.map(lambda seed: ask(client, seed=seed).choices, [0, 1, 2, 3] * 4))
    assert crowd == single * 4


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_answer(url: str, generator: Watched, stream: bool) -> None:
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"model": NAME, "messages": HELLO, "max_tokens": 450, "stream": stream})
    generator.jobs.clear()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        until(lambda: bool(generator.jobs) and generator.jobs[0].generated > 2)
    (job,) = generator.jobs
    until(lambda: job.cancelled)
    # The step that was under way is the last.
    assert job.generated < 450


def test_the_server_answers_while_it_generates(url: str, client: openai.OpenAI, generator: Watched) -> None:
    generator.jobs.clear()
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(ask, client, max_tokens=400)
        until(lambda: bool(generator.jobs) and generator.jobs[0].generated > 2)
        assert requests.get(url.removesuffix("/v1") + "/health/live", timeout=10).json() == {"status": "ok"}
        assert not going.done()
        going.result()


def test_models_and_health(url: str, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    ready = requests.get(url.removesuffix("/v1") + "/health/ready", timeout=10)
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize(
    ("more", "status", "param", "code"),
    [
        ({"model": "gpt-4o"}, 404, "model", "model_not_found"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"messages": [{"role": "pirate", "content": "Arr"}]}, 400, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages", "invalid_value"),
        ({"temperature": 2.5}, 400, "temperature", "invalid_value"),
        ({"top_p": "most"}, 400, "top_p", "invalid_value"),
        ({"max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ({"stop": list("abcde")}, 400, "stop", "invalid_value"),
        ({"n": 0}, 400, "n", "invalid_value"),
        ({"n": 17}, 400, "n", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "unsupported_parameter"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "unsupported_parameter"),
        ({"max_tokens": 500}, 400, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * 600}]}, 400, "messages", "context_length_exceeded"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_openais_terms(
    url: str, more: dict[str, Any], status: int, param: str, code: str
) -> None:
    body = {"model": NAME, "messages": HELLO, "max_tokens": 5} | more
    response = requests.post(f"{url}/chat/completions", json=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_a_missing_field_and_a_body_that_is_no_json_are_named(url: str) -> None:
    missing = requests.post(f"{url}/chat/completions", json={"model": NAME}, timeout=60).json()["error"]
    assert missing["param"] == "messages"
    broken = requests.post(f"{url}/chat/completions", data=b"{", timeout=60)
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_body")
    nowhere = requests.post(f"{url}/completions", json={}, timeout=60)
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "not_found")


def test_an_answer_without_a_limit_ends_with_the_context(client: openai.OpenAI) -> None:
    answer = ask(client, max_tokens=None)
    assert answer.usage.total_tokens == 512
    assert answer.choices[0].finish_reason == "length"


class Broken(Generator):
    """Fails after the first token."""

    def submit(self, prompt: Any, sampling: Sampling, deliver: Callable[[Event], None]) -> Job:
        deliver(Event(40, 1))
        deliver(Event(None, 1, "error"))
        return Job(prompt, sampling, deliver)


def test_generation_that_fails_is_an_error_also_in_a_stream(
    checkpoint: Checkpoint, serving: Callable[[Starlette], AbstractContextManager[str]]
) -> None:
    chat = Chat(NAME, checkpoint, Broken(checkpoint.model, ()))
    with (
        serving(chat.application()) as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="generation failed"):
            ask(client)
        with pytest.raises(openai.APIError, match="generation failed"):
            list(ask(client, stream=True))


def test_more_answers_than_the_queue_takes_are_told_when_to_come_again(
    checkpoint: Checkpoint, serving: Callable[[Starlette], AbstractContextManager[str]]
) -> None:
    with serving(Chat(NAME, checkpoint, Generator(checkpoint.model, ()), max_queue=2).application()) as url:
        body = {"model": NAME, "messages": HELLO, "max_tokens": 2}
        response = requests.post(f"{url}/chat/completions", json={**body, "n": 3}, timeout=60)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "5"
        assert requests.post(f"{url}/chat/completions", json={**body, "n": 2}, timeout=60).status_code == 200


@pytest.mark.servers
def test_the_process_serves_a_folder_and_ends_well_on_sigterm(
    tiny: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    (tmp_path / "watchkeeper.toml").write_text(f'[model]\nname = "{tiny}"\nport = {port}\nthreads = 1\n')
    code = "from watchkeeper.embedded.chat import run; from watchkeeper.settings import load; run(load())"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    try:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert process.poll() is None
            try:
                return requests.get(f"{url}/health/ready", timeout=1).ok
            except requests.ConnectionError:
                return False

        until(ready)
        body = {"model": str(tiny), "messages": HELLO, "max_tokens": 3}
        assert requests.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()["usage"]["completion_tokens"] == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
