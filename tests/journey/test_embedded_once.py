"""Nobody embeds the same text twice: how often a real gateway asks a real encoder, counted on the wire between them."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from gateway import wait_until

pytestmark = [pytest.mark.models, pytest.mark.servers, pytest.mark.timeout(300)]


class Counter(BaseHTTPRequestHandler):
    """Passes every request on to the encoder, and notes the texts of each."""

    protocol_version = "HTTP/1.1"
    encoder: str
    calls: list[list[str]]

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(requests.get(self.encoder + self.path, timeout=60))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.calls.append(json.loads(body)["input"])
        headers = {"content-type": "application/json"}
        self._answer(requests.post(self.encoder + self.path, data=body, headers=headers, timeout=60))

    def _answer(self, response: requests.Response) -> None:
        self.send_response(response.status_code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory,
    module_upstreams: Callable[[], Any],
    module_port: Callable[[], int],
    module_processes: Callable[..., Any],
) -> Iterator[SimpleNamespace]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    upstream, gateway_port, encoder_port = module_upstreams(), module_port(), module_port()
    calls: list[list[str]] = []
    handler = type("Handler", (Counter,), {"encoder": f"http://127.0.0.1:{encoder_port}", "calls": calls})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "knowledge").mkdir()
    (folder / "knowledge" / "leave.md").write_text("# Leave\n\nEvery employee has 27 days of annual leave a year.\n")
    config = folder / "watchkeeper.toml"
    config.write_text(
        f"""
data = "{folder / "data"}"
[gateway]
port = {gateway_port}
[encoder]
port = {encoder_port}
[knowledge]
folders = ["{folder / "knowledge"}"]
[cache]
enabled = true
[[upstreams]]
name = "scripted"
base_url = "{upstream.url}"
model = "scripted"
"""
    )
    command = [sys.executable, "-m", "watchkeeper"]
    module_processes([*command, "encoder", "--config", str(config)], ready=f"http://127.0.0.1:{encoder_port}/health/ready")
    url = f"http://127.0.0.1:{gateway_port}"
    env = {"WATCHKEEPER_ENCODER__BASE_URL": f"http://127.0.0.1:{server.server_address[1]}/v1"}
    module_processes([*command, "serve", "--config", str(config)], ready=f"{url}/health/live", env=env)
    wait_until(lambda: requests.get(f"{url}/health/ready", timeout=5).json()["knowledge"] == "ready", "the knowledge base")
    upstream.say = lambda messages: ["You have ", "27 days ", "of annual leave."]
    yield SimpleNamespace(url=url, calls=calls, upstream=upstream)
    server.shutdown()
    server.server_close()


def ask(gateway: SimpleNamespace, *messages: Any, **options: Any) -> list[list[str]]:
    """The texts of each call of the encoder that one request made."""
    gateway.calls.clear()
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(messages)]
    body = {"model": "watchkeeper", "messages": turns, **options}
    response = requests.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    texts = [text for call in gateway.calls for text in call]
    assert len(set(texts)) == len(texts), "a text was embedded twice"
    return list(gateway.calls)


def test_a_request_asks_for_its_prompt_and_its_answer_and_nothing_twice(gateway: SimpleNamespace) -> None:
    passage = "Leave\nEvery employee has 27 days of annual leave a year."
    answer = "You have 27 days of annual leave."
    prompt = "How many days of annual leave do I have?"
    first = ask(gateway, prompt)
    assert first == [[prompt], [passage], [answer]], "a passage that is found for the first time is judged once"
    second = "How many days of annual leave does a new employee have?"
    assert ask(gateway, second) == [[second]], "passage and answer are known"
    assert ask(gateway, prompt) == []


def test_what_is_redacted_and_what_is_searched_with_goes_in_the_same_call(gateway: SimpleNamespace) -> None:
    prompt = "My mail is ann.lee@example.com, how many days of annual leave do I have?"
    assert ask(gateway, prompt)[0] == [prompt, prompt.replace("ann.lee@example.com", "[EMAIL]")]
    hidden = "How many days of an\u200bnual le\u200bave do I have here?"
    assert ask(gateway, hidden)[0] == [hidden, hidden.replace("\u200b", "")]
    assert ask(gateway, "How many days do I have then?", "27.", "And for contractors?")[0] == [
        "How many days do I have then?",
        "27.",
        "And for contractors?",
        "How many days do I have then? And for contractors?",
    ]


def test_a_chat_that_goes_on_asks_for_what_is_new(gateway: SimpleNamespace) -> None:
    talk = [
        "How does the annual leave of a new employee begin?",
        "On the first day.",
        "And what of the leave of the year before?",
    ]
    ask(gateway, *talk)
    calls = ask(gateway, *talk, "It lapses in March.", "May I take all of it in December instead?")
    assert calls == [["It lapses in March.", "May I take all of it in December instead?"]]


def test_an_answer_that_is_given_again_asks_for_nothing(gateway: SimpleNamespace) -> None:
    prompt = "How many days of annual leave does the newest employee have?"
    ask(gateway, prompt, temperature=0)
    asked = len(gateway.upstream.bodies)
    assert ask(gateway, prompt, temperature=0) == []
    assert ask(gateway, prompt, temperature=0, stream=True) == []
    assert len(gateway.upstream.bodies) == asked
