"""A conversation that is too long for the model, before a real gateway: the newest is answered, and it is said what stayed
behind."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from watchkeeper.record import Record, decode
from watchkeeper.telemetry.segment import segments

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

LONG = [
    {"role": role, "content": f"{role} {number} " + "about leave and expenses " * 12}
    for number in range(12)
    for role in ("user", "assistant")
][:-1]


@pytest.fixture(scope="module")
def gateway(
    module_processes: Callable[..., Any],
    module_port: Callable[[], int],
    module_upstreams: Callable[[], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("gateway")
    small, large, port = module_upstreams(), module_upstreams(), module_port()
    config = folder / "watchkeeper.toml"
    config.write_text(
        f"""
data = "{folder / "data"}"
[gateway]
port = {port}
[stages]
embed = false
[[upstreams]]
name = "small"
base_url = "{small.url}"
model = "scripted"
weight = 1000000
context = 300
[[upstreams]]
name = "large"
base_url = "{large.url}"
model = "scripted"
weight = 0.000001
context = 900
"""
    )
    url = f"http://127.0.0.1:{port}"
    module_processes([sys.executable, "-m", "watchkeeper", "serve", "--config", str(config)], ready=f"{url}/health/live")
    return SimpleNamespace(url=url, spool=folder / "data" / "spool", small=small, large=large)


@pytest.fixture(autouse=True)
def _fresh(gateway: SimpleNamespace) -> None:
    gateway.small.bodies.clear()
    gateway.large.bodies.clear()


def ask(gateway: SimpleNamespace, messages: list[dict[str, Any]], **options: Any) -> requests.Response:
    body = {"model": "watchkeeper", "messages": messages, "max_tokens": 100, **options}
    return requests.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)


def record(spool: Path, request_id: str) -> Record:
    rows = (row for segment in segments(spool).segments for row in segment.rows(0))
    return next(decode(row.body) for row in rows if row.request_id == request_id)


@pytest.mark.parametrize("stream", [False, True])
def test_the_oldest_turns_stay_behind_and_answer_and_record_say_so(gateway: SimpleNamespace, stream: bool) -> None:
    response = ask(gateway, LONG, stream=stream)
    assert response.status_code == 200
    (body,) = gateway.large.bodies
    assert gateway.small.bodies == [], "what does not fit is not sent there"
    sent = body["messages"]
    assert [sent[0]["role"], sent[1]["role"]] == ["system", "user"]
    assert sent[-1]["content"] == LONG[-1]["content"]
    left_out = len(LONG) - (len(sent) - 1)
    assert 0 < left_out < len(LONG) - 1
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if '"left_out"' in line]
    told = json.loads(events[-1])["watchkeeper"]["left_out"]
    assert told == {"turns": left_out}
    kept = record(gateway.spool, response.headers["x-request-id"])
    stage = next(stage for stage in kept.stages if stage.name == "route")
    assert stage.attributes["left_out_turns"] == left_out
    assert len(kept.prompt) == len(sent)
    assert int(stage.attributes["tokens"]) + body["max_tokens"] <= 900


def test_what_fits_no_window_by_itself_is_refused_with_a_record(gateway: SimpleNamespace) -> None:
    response = ask(gateway, [{"role": "user", "content": "about leave and expenses " * 400}])
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert "900" in error["message"]
    kept = record(gateway.spool, response.headers["x-request-id"])
    assert (kept.status, kept.error) == (400, "context_length_exceeded")
    assert kept.input_tokens > 900


def test_what_is_named_has_its_own_window(gateway: SimpleNamespace) -> None:
    response = ask(gateway, LONG, model="small")
    assert response.status_code == 200
    (body,) = gateway.small.bodies
    assert response.json()["watchkeeper"]["left_out"]["turns"] > 12
    assert body["messages"][-1]["content"] == LONG[-1]["content"]


def test_the_model_gets_the_original(gateway: SimpleNamespace) -> None:
    odd = "cafe\u0301 donâ€™t ze\u200bro ｆｕｌｌ \u202eleft"
    assert ask(gateway, [{"role": "user", "content": odd}]).status_code == 200
    bodies = gateway.small.bodies + gateway.large.bodies
    assert len(bodies) == 1
    assert bodies[0]["messages"][-1]["content"] == odd
