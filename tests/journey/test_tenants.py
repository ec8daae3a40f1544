"""Tenants at a real gateway: who may in, how much, and that one who floods costs the others nothing."""

import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from watchkeeper.feedback import Feedback
from watchkeeper.feedback import decode as decode_feedback
from watchkeeper.record import Record, decode
from watchkeeper.serving.budgets import FILE_NAME
from watchkeeper.telemetry.segment import FEEDBACK, segments

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

OFF = "\n".join(f"{stage} = false" for stage in ("preprocess", "embed", "ground", "guard_in", "check", "guard_out"))


@dataclass
class House:
    """A gateway behind which a scripted upstream stands. `keys`: by tenant, and `operator`."""

    url: str
    file: Path
    data: Path
    upstream: Any
    command: list[str]
    run: Callable[..., Any]
    keys: dict[str, str] = field(default_factory=dict)

    def start(self, url: str | None = None) -> Any:
        """`url`: where, unless it is where the settings say."""
        url = url or self.url
        env = {"WATCHKEEPER_GATEWAY__PORT": url.rpartition(":")[2]}
        return self.run([*self.command, "serve", "--config", str(self.file)], ready=f"{url}/health/live", env=env)

    def cli(self, *words: str) -> Any:
        done = subprocess.run([*self.command, *words, "--config", str(self.file), "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def key(self, tenant: str, *words: str) -> str:
        text: str = self.cli("keys", "add", "--tenant", tenant, *words)["key"]
        return text

    def ask(
        self, tenant: str | None = None, *, url: str | None = None, patience_s: float = 60, **body: Any
    ) -> requests.Response:
        asked = {"model": "watchkeeper", "messages": [{"role": "user", "content": "Hello"}]} | body
        headers = {"authorization": f"Bearer {self.keys[tenant]}"} if tenant else {}
        return requests.post(
            f"{url or self.url}/v1/chat/completions", json=asked, headers=headers, timeout=(30, patience_s)
        )

    def metrics(self) -> str:
        headers = {"authorization": f"Bearer {self.keys['operator']}"} if self.keys else {}
        return requests.get(f"{self.url}/metrics", headers=headers, timeout=30).text

    def rows(self) -> Iterator[Record | Feedback]:
        for segment in segments(self.data / "spool").segments:
            for row in segment.rows(0):
                yield decode_feedback(row.body) if row.kind == FEEDBACK else decode(row.body)

    def records(self) -> dict[str, Record]:
        return {row.request_id: row for row in self.rows() if isinstance(row, Record)}


@pytest.fixture
def house(
    tmp_path: Path,
    upstreams: Callable[[], Any],
    run_process: Callable[..., Any],
    free_port: Callable[[], int],
    watchkeeper: list[str],
) -> Callable[..., House]:
    """Makes one from lines of settings: of `[gateway]`, and whatever comes after."""

    def make(gateway: str = "", more: str = "") -> House:
        upstream, port, data = upstreams(), free_port(), tmp_path / "data"
        file = tmp_path / "watchkeeper.toml"
        file.write_text(
            f'data = "{data}"\n[gateway]\nport = {port}\n{gateway}\n[stages]\n{OFF}\n'
            f'[[upstreams]]\nname = "scripted"\nbase_url = "{upstream.url}"\nmodel = "scripted"\n'
            f"price = {{ input = 1000, output = 10000 }}\n{more}\n"
        )
        return House(f"http://127.0.0.1:{port}", file, data, upstream, watchkeeper, run_process)

    return make


def test_with_keys_everything_but_health_wants_one_and_says_whose_it_is(
    house: Callable[..., House], wait_for: Callable[..., None]
) -> None:
    here = house(more='[[tenants]]\nname = "acme"\nmodels = ["watchkeeper"]\nroutes = ["default", "shop"]')
    process = here.start()
    assert here.ask().status_code == 200, "without keys everybody may, as before"
    here.keys = {"acme": here.key("acme"), "operator": here.key("house", "--role", "operator")}
    wait_for(lambda: here.ask().status_code == 401, what="the keys to be followed")
    for method, path in [
        *(("POST", f"/v1/{name}") for name in ("chat/completions", "embeddings", "feedback", "traces")),
        *(("GET", path) for path in ("/v1/models", "/metrics", "/nowhere", "/health/livelier", "//health/live")),
    ]:
        answer = requests.request(method, f"{here.url}{path}", timeout=30)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        assert answer.json()["error"]["code"] == "missing_api_key"
    for path in ("/health/live", "/health/ready"):
        assert requests.get(f"{here.url}{path}", timeout=30).status_code == 200
    with openai.OpenAI(base_url=f"{here.url}/v1", api_key=here.keys["acme"], max_retries=0) as client:
        answered = client.chat.completions.create(model="watchkeeper", messages=[{"role": "user", "content": "Hello"}])
        assert [model.id for model in client.models.list()] == ["watchkeeper"]
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="sk-nothing").models.list()
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "Hello"}])
    assert caught.value.code == "model_not_allowed"
    refused = here.ask("acme", watchkeeper={"route": "elsewhere"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "route")
    request_id = answered.id.removeprefix("chatcmpl-")
    said = requests.post(
        f"{here.url}/v1/feedback",
        json={"request_id": request_id, "score": 1},
        headers={"authorization": f"Bearer {here.keys['acme']}"},
        timeout=30,
    )
    assert said.status_code == 200
    assert requests.get(
        f"{here.url}/metrics", headers={"authorization": f"Bearer {here.keys['acme']}"}, timeout=30
    ).status_code == 403  # fmt: skip
    assert 'watchkeeper_refused_total{reason="route",tenant="acme"} 1.0' in here.metrics()
    key_id = here.keys["acme"].split("_")[1]
    here.cli("keys", "revoke", key_id)
    wait_for(lambda: here.ask("acme").status_code == 401, what="the end of the key")
    process.stop()
    records = here.records()
    record = records[request_id]
    assert (record.tenant, record.stages[0].attributes["key"]) == ("acme", key_id)
    assert {(row.tenant, row.score) for row in here.rows() if isinstance(row, Feedback)} == {("acme", 1.0)}
    assert records[refused.headers["x-request-id"]].status == 403
    logs = "".join(path.read_text() for path in process.log.parent.glob("process-*.log"))
    kept = b"".join(path.read_bytes() for path in here.data.rglob("*") if path.is_file())
    for text in here.keys.values():
        assert text not in logs
        assert text.encode() not in kept


def test_two_workers_share_one_limit_and_refuse_with_a_true_time_and_a_record(
    house: Callable[..., House], free_port: Callable[[], int]
) -> None:
    """Each behind a port of its own, so that it is known which is asked."""
    here = house("", '[[tenants]]\nname = "default"\nrequests_per_minute = 20\ntokens_per_minute = 100_000')
    urls = [here.url, f"http://127.0.0.1:{free_port()}"]
    processes = [here.start(url) for url in urls]
    began = time.monotonic()
    answers = [here.ask(url=urls[number % 2]) for number in range(50)]
    took = time.monotonic() - began
    good = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(good) + len(refused) == 50
    assert 20 <= len(good) <= 20 + math.ceil(took / 3), "one comes back every three seconds"
    assert good[0].headers["x-ratelimit-limit-requests"] == "20"
    assert [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in good[:3]] == [19, 18, 17]
    assert int(good[2].headers["x-ratelimit-remaining-tokens"]) > 99_000, "what was not used came back"
    for answer in refused:
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(answer.headers["retry-after"]) <= 3
    time.sleep(int(refused[-1].headers["retry-after"]))
    assert here.ask().status_code == 200
    for process in processes:
        process.stop()
    records = here.records()
    assert {records[answer.headers["x-request-id"]].replica for answer in good} == {"gateway-0", "gateway-1"}
    for answer in refused:
        record = records[answer.headers["x-request-id"]]
        assert (record.status, record.error) == (429, "rate_limit_exceeded")
        assert record.stages[0].attributes["refused"] == "requests"
        assert record.stages[0].attributes["requests_left"] == 0


def test_without_its_file_of_budgets_nobody_spends_and_metrics_tell_all_else(house: Callable[..., House]) -> None:
    here = house("", '[[tenants]]\nname = "default"\nusd_per_day = 1.0')
    here.start()
    assert here.ask(max_tokens=4).status_code == 200
    assert "watchkeeper_budget_spent_usd{" in here.metrics()
    os.truncate(here.data / FILE_NAME, 4)
    refused = here.ask(max_tokens=4)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "admit_failed")
    told = here.metrics()
    assert "watchkeeper_spool_rows" in told
    assert "watchkeeper_budget_spent_usd{" not in told, "unknown is not what was known before"


def test_a_budget_in_usd_is_what_the_records_cost_and_outlives_a_restart(house: Callable[..., House]) -> None:
    budget = '[[tenants]]\nname = "default"\nusd_per_day = 1.0\nalert_at = 0.5'
    here = house("workers = 2", budget)
    process = here.start()
    answers = [here.ask(max_tokens=4) for _ in range(60)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in refused} == {(429, "insufficient_quota")}
    assert abs(int(refused[0].headers["retry-after"]) - (86_400 - time.time() % 86_400)) <= 3_600
    spent = float(next(line.split()[-1] for line in here.metrics().splitlines() if "budget_spent_usd{" in line))
    assert 'watchkeeper_budget_alert{period="day",tenant="default"} 1.0' in here.metrics()
    process.stop()
    cost = sum(record.cost_usd for record in here.records().values() if record.status == 200)
    assert cost == pytest.approx(spent)
    assert 0.5 < spent <= 1.0, "never more than the budget"
    process = here.start()
    assert here.ask(max_tokens=4).status_code == 429
    process.stop()


def test_a_request_that_waits_leaves_the_line_with_its_client(
    house: Callable[..., House], wait_for: Callable[..., None]
) -> None:
    here = house("max_in_flight = 1\nmax_queue = 5", '[[tenants]]\nname = "default"\nmax_in_flight = 3')
    process = here.start()
    here.upstream.pause_s = 1.0  # a piece; there are two
    first = threading.Thread(target=here.ask)
    first.start()
    wait_for(lambda: len(here.upstream.bodies) == 1, what="the first request at the upstream")
    with pytest.raises(requests.ReadTimeout):
        here.ask(patience_s=0.3)
    wait_for(lambda: any(record.error == "disconnected" for record in here.records().values()), what="its record")
    assert "watchkeeper_queue_depth 0.0" in here.metrics()
    first.join()
    assert [here.ask().status_code for _ in range(3)] == [200] * 3, "nothing of it is still under way"
    process.stop()
    (gone,) = (record for record in here.records().values() if record.error == "disconnected")
    assert (gone.status, gone.attempts) == (499, 0)
    assert len(here.upstream.bodies) == 4


def test_a_full_line_is_a_503_of_ours_with_a_time_to_come_back(house: Callable[..., House]) -> None:
    here = house("max_in_flight = 1\nmax_queue = 2")
    process = here.start()
    here.upstream.pause_s = 0.2
    answers: list[requests.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(here.ask())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.stop()
    records = here.records()
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) >= 3
    assert set(codes) == {200, 503}
    for answer in answers:
        record = records[answer.headers["x-request-id"]]
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
            assert record.stages[0].attributes["refused"] == "queue_full"
    assert any(float(record.stages[0].attributes.get("queue_ms", 0)) > 0 for record in records.values())


@pytest.mark.alone
def test_one_tenant_that_floods_costs_another_neither_answers_nor_much_time(house: Callable[..., House]) -> None:
    here = house("max_in_flight = 2\nmax_queue = 40\nqueue_limit_ms = 60_000\nqueue_target_ms = 60_000")
    here.keys = {name: here.key(name) for name in ("flood", "quiet")}
    process = here.start()
    here.upstream.pause_s = 0.05
    stop = threading.Event()
    flooded: list[tuple[int, float]] = []

    def flood() -> None:
        while not stop.is_set():
            flooded.append(timed(here, "flood"))

    threads = [threading.Thread(target=flood) for _ in range(24)]
    for thread in threads:
        thread.start()
    while len(flooded) < 24:
        time.sleep(0.05)
    quiet = [timed(here, "quiet") for _ in range(20)]
    stop.set()
    for thread in threads:
        thread.join()
    process.stop()
    assert [status for status, _ in quiet] == [200] * 20
    flood_median = sorted(took for _, took in flooded)[len(flooded) // 2]
    assert max(took for _, took in quiet) < flood_median / 2, "it waits for who is served, not for who waits"


def timed(here: House, tenant: str) -> tuple[int, float]:
    began = time.monotonic()
    return here.ask(tenant).status_code, time.monotonic() - began
