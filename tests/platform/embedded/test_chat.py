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
    with serving(Chat(NAME, checkpoint, generator).application()) as url:
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
    assert usage.usage == whole.usage
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
        ({"n": 2}, 400, "n", "unsupported_parameter"),
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


def test_too_many_requests_are_told_when_to_come_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchkeeper.embedded.chat.MAX_IN_FLIGHT", 0)
    response = requests.post(f"{url}/chat/completions", json={"model": NAME, "messages": HELLO}, timeout=60)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
    assert response.headers["retry-after"] == "5"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.servers
def test_the_process_serves_a_folder_and_ends_well_on_sigterm(tiny: Path, tmp_path: Path) -> None:
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
