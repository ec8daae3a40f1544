"""Several upstreams behind a real gateway: what clients, records and `/metrics` see of retries, breakers, hedges."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from watchkeeper.record import Record, Scalar, decode
from watchkeeper.telemetry.segment import segments

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

TOML = """
data = "{data}"
[gateway]
port = {port}
[encoder]
base_url = "http://127.0.0.1:1/v1"
[stages]
embed = false
ground = false
guard_in = false
check = false
guard_out = false
[balancing]
hedge = {hedge}
breaker_pause = "1h"
"""
UPSTREAM = """
[[upstreams]]
name = "{name}"
base_url = "{url}"
model = "scripted"
fallback = {fallback}
"""


@dataclass
class Balanced:
    """A gateway before three upstreams; `spare` is a fallback."""

    url: str
    data: Path
    upstreams: dict[str, Any] = field(default_factory=dict)

    def ask(self, **more: Any) -> requests.Response:
        body = {"model": "watchkeeper", "messages": [{"role": "user", "content": "Hi"}], **more}
        return requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=30)

    def record(self, response: requests.Response) -> Record:
        asked = response.headers["x-request-id"]
        found = [row for segment in segments(self.data / "spool").segments for row in segment.rows(0)]
        return decode(next(row.body for row in found if row.request_id == asked))

    def told(self, response: requests.Response, stage: str) -> dict[str, Scalar]:
        return next(dict(found.attributes) for found in self.record(response).stages if found.name == stage)

    def metrics(self) -> dict[str, float]:
        lines = requests.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


@pytest.fixture
def balanced(
    tmp_path: Path, upstreams: Callable[[], Any], free_port: Callable[[], int], run_process: Callable[..., Any]
) -> Callable[..., Balanced]:
    def start(*, hedge: bool = False) -> Balanced:
        made = Balanced(f"http://127.0.0.1:{free_port()}", tmp_path / "data")
        toml = TOML.format(data=made.data, port=made.url.rsplit(":", 1)[1], hedge=str(hedge).lower())
        for name, fallback in (("a", 0), ("b", 0), ("spare", 1)):
            made.upstreams[name] = upstreams()
            toml += UPSTREAM.format(name=name, url=made.upstreams[name].url, fallback=fallback)
        config = tmp_path / "watchkeeper.toml"
        config.write_text(toml)
        run_process(
            [sys.executable, "-m", "watchkeeper", "serve", "--config", str(config)], ready=f"{made.url}/health/live"
        )
        return made

    return start


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_upstream_costs_no_client_anything(balanced: Callable[..., Balanced], stream: bool) -> None:
    gateway = balanced()
    gateway.upstreams["a"].status = 500
    answers = [gateway.ask(stream=stream) for _ in range(25)]
    assert Counter(answer.status_code for answer in answers) == {200: 25}
    assert len(gateway.upstreams["a"].bodies) == 3, "its breaker opened after three"
    assert gateway.upstreams["spare"].bodies == []
    retried = [answer for answer in answers if gateway.record(answer).attempts == 2]
    assert len(retried) == 3
    told = gateway.told(retried[0], "generate")
    assert (told["upstream"], told["hedged"]) == ("b", False)
    assert str(told["tried"]).startswith("a: upstream_error after ")
    assert "b (retry): answer" in str(told["tried"])
    route = gateway.told(answers[-1], "route")
    assert (route["policy"], route["breakers"], route["candidates"]) == ("balanced", "a=open", "b, spare, a")
    metrics = gateway.metrics()
    assert metrics['watchkeeper_upstream_breaker{state="open",upstream="a"}'] == 1
    assert metrics['watchkeeper_upstream_calls_total{outcome="upstream_error",upstream="a"}'] == 3
    assert metrics['watchkeeper_upstream_calls_total{outcome="answered",upstream="b"}'] == 25
    assert metrics['watchkeeper_retries_total{fate="retried"}'] == 3
    assert metrics["watchkeeper_retry_budget"] > 50
    assert metrics['watchkeeper_upstream_outstanding_tokens{upstream="a"}'] == 0


def test_the_fallback_answers_when_no_other_can_and_when_none_can_all_were_tried(
    balanced: Callable[..., Balanced],
) -> None:
    gateway = balanced()
    for name in "ab":
        gateway.upstreams[name].status = 503
    answer = gateway.ask()
    assert (answer.status_code, gateway.record(answer).upstream, gateway.record(answer).attempts) == (200, "spare", 3)
    gateway.upstreams["spare"].status = 503
    refused = gateway.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_error")
    record = gateway.record(refused)
    assert (record.error, record.attempts) == ("upstream_error", 3)
    assert [part.split(":")[0] for part in str(gateway.told(refused, "generate")["tried"]).split("; ")][
        2
    ] == "spare (retry)"


def test_a_late_stream_is_asked_of_another_and_the_first_upstream_sees_its_connection_end(
    balanced: Callable[..., Balanced], wait_for: Callable[..., None]
) -> None:
    gateway = balanced(hedge=True)
    usual = Counter(gateway.record(gateway.ask(stream=True)).upstream for _ in range(60))
    name = str(usual.most_common(1)[0][0])
    slow = gateway.upstreams[name]
    slow.say, slow.pause_s = (lambda messages: ["", *["Slow "] * 200]), 4.0
    told: list[dict[str, Scalar]] = []
    for _ in range(60):
        answer = gateway.ask(stream=True)
        assert "Slow" not in answer.text
        assert "[DONE]" in answer.text
        told += [found for found in [gateway.told(answer, "generate")] if f"{name}: given_up" in str(found.get("tried"))]
        if told:
            break
    assert (told[0]["upstream"] != name, told[0]["hedged"]) == (True, True)
    assert gateway.metrics()['watchkeeper_hedges_total{fate="won"}'] >= 1
    wait_for(lambda: slow.broken_pipes >= 1, what="the loser to see it", within_s=30)
