"""What people and upstreams write is planted wherever anything can be written, and then looked for in every byte kept: real
gateways, a real shipper, a real MLflow."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest
import requests
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from watchkeeper.settings import Redaction, Settings, load
from watchkeeper.tracking import server_command

pytestmark = pytest.mark.servers

MARK: Final = "zyxharmless"
"""In every text beside what is planted: where it is not found, nothing was looked through."""

PLANTS: Final = {  # category → a text, and the part of it that may be nowhere
    "EMAIL": ("write to petra.planted@example.com", "petra.planted"),
    "PHONE": ("call +1 (415) 555-2671 after six", "555-2671"),
    "CARD": ("paid with 4111 1111 1111 1111", "4111 1111"),
    "IBAN": ("from DE89 3704 0044 0532 0130 00", "3704 0044"),
    "BANK_ACCOUNT": ("bank account number 87654321987", "87654321987"),
    "SSN": ("SSN 078-05-1120", "078-05-1120"),
    "NATIONAL_ID": ("national insurance number AB 12 34 56 C", "12 34 56"),
    "PASSPORT": ("passport number X7654321", "X7654321"),
    "LICENSE": ("driver's license number D4567890", "D4567890"),
    "BIRTH_DATE": ("date of birth: March 4, 1985", "March 4, 1985"),
    "ADDRESS": ("at 221B Bakerplant Street, London NW1 6XE", "Bakerplant"),
    "IP": ("my ip is 203.0.113.77", "203.0.113.77"),
    "MAC": ("from 3c:22:fb:9a:1d:7e", "3c:22:fb"),
    "PASSWORD": ("my password is hunter2planted", "hunter2planted"),
    "API_KEY": ("use AKIAIOSFODNN7PLANTED", "AKIAIOSFODNN7"),
    "TOKEN": ("Authorization: Bearer planted1234567890abcdef", "planted1234567890"),
    "PRIVATE_KEY": (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA1c7PLANTEDz5Pad7\n-----END RSA PRIVATE KEY-----",
        "MIIEpAIBAAKCAQEA1c7",
    ),
}
ALL: Final = " | ".join(text for text, _ in PLANTS.values())
PLANTED: Final = st.lists(st.sampled_from(sorted(PLANTS)), min_size=1, max_size=3, unique=True).map(
    lambda names: f"{MARK} " + "; ".join(PLANTS[name][0] for name in names)
)


def test_every_category_is_planted() -> None:
    assert set(PLANTS) == {name for name in Redaction.model_fields if name.isupper()}


class _Gossip(BaseHTTPRequestHandler):
    """An upstream that says what it was last told to say, everywhere where an upstream can say something."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        say = self.server.say
        if self.server.refuse:
            self._send(400, "application/json", json.dumps({"error": {"message": say, "code": say, "type": say}}).encode())
            return
        call = {"id": say, "type": "function", "function": {"name": "mail", "arguments": json.dumps({"to": say})}}
        about = {"id": say, "model": say, "system_fingerprint": say}
        if not body.get("stream"):
            message = {"role": "assistant", "content": say, "tool_calls": [call], "refusal": say}
            choice = {"index": 0, "message": message, "finish_reason": say}
            self._send(200, "application/json", json.dumps({**about, "choices": [choice]}).encode())
            return
        pieces = [say[start : start + self.server.cut] for start in range(0, len(say), self.server.cut)]
        events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
        events += [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": say}]}]
        if self.server.breaks:
            events += [{"error": {"message": say}}]
        text = "".join(f"data: {json.dumps({**about, **event})}\n\n" for event in events) + "data: [DONE]\n\n"
        self._send(200, "text/event-stream", text.encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    say = ""
    cut = 1
    refuse = False
    breaks = False


@pytest.fixture
def gossip() -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Gossip)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def house(folder: Path, gossip: _Server, port: Callable[[], int], stages: bool) -> tuple[Settings, Path]:
    handbook = folder / "handbook"
    handbook.mkdir(parents=True)
    for number in range(3):
        (handbook / f"{number}.md").write_text(f"# Leave {number}\n\nAbout {MARK} leave: {ALL}\n", encoding="utf-8")
    file = folder / "watchkeeper.toml"
    guards = f"guard_in = {str(stages).lower()}\nguard_out = {str(stages).lower()}"
    file.write_text(
        f"""
data = "{folder / "data"}"
[gateway]
port = {port()}
[encoder]
port = {port()}
[mlflow]
uri = "http://127.0.0.1:{port()}"
[knowledge]
folders = ["{handbook}"]
[redaction]
default = "{"mask" if stages else "hash"}"
[stages]
{guards}
[[upstreams]]
name = "gossip"
base_url = "http://127.0.0.1:{gossip.server_address[1]}/v1"
model = "scripted"
"""
    )
    return load(file), file


def chat(url: str, text: str, **more: Any) -> requests.Response:
    """A request with the text in every place that a client can write to."""
    call = {"id": text, "type": "function", "function": {"name": "mail", "arguments": json.dumps({"to": text})}}
    body = {
        "model": "watchkeeper",
        "messages": [
            {"role": "system", "content": text, "name": text},
            {
                "role": "user",
                "content": [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": text}}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": text, "tool_call_id": text},
            {"role": "user", "content": text},
        ],
        "tools": [{"type": "function", "function": {"name": "mail", "description": text}}],
        "metadata": {text: text},
        "stop": [text],
        "user": text,
        "unknown_field": {"deep": [text]},
        "watchkeeper": {"session": text, "user": text, "route": text, "tags": {text: text, "plain": text}},
        **more,
    }
    return requests.post(f"{url}/v1/chat/completions", json=body, headers={"x-title": "t"}, timeout=60)


def kept(folder: Path) -> dict[str, str]:
    """Everything under a folder as text; Parquet, which is packed, also as what its rows say."""
    found: dict[str, str] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not {"knowledge", "handbook"} & set(path.parts):  # the operator's own documents
            found[str(path)] = path.read_bytes().decode("utf-8", "replace")
            if path.suffix == ".parquet":
                found[f"{path} rows"] = str(pq.read_table(path).to_pylist())
    return found


def leaks(texts: dict[str, str]) -> list[tuple[str, str]]:
    return [(place, name) for place, text in texts.items() for name, (_, part) in PLANTS.items() if part in text]


@pytest.mark.parametrize("stages", [True, False], ids=["guarded", "unguarded"])
def test_what_is_planted_anywhere_is_nowhere(
    tmp_path: Path,
    gossip: _Server,
    run_process: Callable[..., Any],
    free_port: Callable[[], int],
    watchkeeper: list[str],
    stages: bool,
) -> None:
    settings, file = house(tmp_path, gossip, free_port, stages)
    url = settings.gateway.url
    run_process([*watchkeeper, "serve", "--config", str(file)], ready=f"{url}/health/live")

    @given(PLANTED, PLANTED, st.integers(1, 60), st.booleans(), st.booleans(), st.booleans())
    @hypothesis_settings(max_examples=12, suppress_health_check=list(HealthCheck))
    def plant(asked: str, said: str, cut: int, stream: bool, refuse: bool, breaks: bool) -> None:
        gossip.say, gossip.cut, gossip.refuse, gossip.breaks = said, cut, refuse, breaks
        assert chat(url, asked, stream=stream).status_code in (200, 400, 502)

    plant()
    gossip.refuse = gossip.breaks = False
    ids = []
    for name, (text, _) in PLANTS.items():
        gossip.say, gossip.cut = f"{MARK} {text}", 3
        for stream in (False, True):
            answer = chat(url, f"{MARK} {text}", stream=stream)
            ids.append(answer.headers["x-request-id"])
        alone = {"messages": [{"role": "user", "content": f"{MARK} {text}"}], "watchkeeper": {"session": text}}
        for _ in range(2):  # the second one gets the first one's turn from the session store
            assert requests.post(f"{url}/v1/chat/completions", json={"model": "watchkeeper", **alone}, timeout=60)
        said = {"request_id": ids[-1], "comment": f"{MARK} {text}", "user": text}
        assert requests.post(f"{url}/v1/feedback", json={**said, "label": text[:60]}, timeout=60).status_code == 200
        for wrong in ({**said, "score": 2}, {**said, "name": text}, {**said, "label": text, "score": 1}, {text: text}):
            assert requests.post(f"{url}/v1/feedback", json=wrong, timeout=60).status_code == 400, name
        for broken in (f'{{"messages": "{text}', json.dumps({"model": text, "messages": [{"role": text}]})):
            assert requests.post(f"{url}/v1/chat/completions", data=broken.encode(), timeout=60).status_code == 400
        assert chat(url, text, model=text).status_code == 404
        requests.get(f"{url}/v1/{text}", timeout=60)
    spooled = kept(tmp_path) | {"/metrics": requests.get(f"{url}/metrics", timeout=60).text}
    assert leaks(spooled) == []
    for place in ("/spool/", "/sessions.sqlite"):
        assert any(place in path and MARK in text and "[EMAIL" in text for path, text in spooled.items()), place
    if stages:
        return  # what is spooled is what is shipped: once is enough, with nothing but the record's own redaction
    argv, env = server_command(settings, settings.data)
    run_process(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    ship = [*watchkeeper, "ship", "--once", "--config", str(file)]
    assert subprocess.run(ship, timeout=300, check=False).returncode == 0
    everything = kept(tmp_path)
    assert leaks(everything) == []
    for place in (".parquet rows", "mlflow"):
        assert any(place in path and MARK in text and "[EMAIL" in text for path, text in everything.items()), place
