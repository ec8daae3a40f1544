"""A person's words, planted through the whole house and erased: every byte under the data folder is searched for them,
MLflow's database and artifacts included, on a SQLite that overwrites nothing, with MLflow killed in between."""

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import requests

from watchkeeper.lake.lake import Lake
from watchkeeper.release import BUILTIN
from watchkeeper.settings import Settings, load
from watchkeeper.telemetry.dead_letters import DEAD_LETTERS
from watchkeeper.telemetry.ledger import verify
from watchkeeper.tracking import Tracking, server_command
from watchkeeper.tracking.prompts import Releases
from watchkeeper_evaluations import dataset, experiment
from watchkeeper_evaluations.erasure.erasure import AUDIT
from watchkeeper_evaluations.erasure.selection import JOURNAL
from watchkeeper_evaluations.evidence import gate_releases
from watchkeeper_evaluations.job import evaluate
from watchkeeper_evaluations.policy import load_policy
from watchkeeper_evaluations.scorers import live
from watchkeeper_evaluations.window import Window

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

PLANTED = "zyxplanted"
ROUNDS = 9


@dataclass
class House:
    """Real servers on one data folder; `asked`: who asked what, by request id."""

    settings: Settings
    file: Path
    command: list[str]
    start: Callable[..., Any]
    careless_sqlite: dict[str, str]
    asked: dict[str, str] = field(default_factory=dict)

    def mlflow(self) -> Any:
        argv, env = server_command(self.settings, self.settings.data)
        return self.start(argv, ready=f"{self.settings.mlflow.uri}/health", env=env | self.careless_sqlite)

    def run(self, command: str, ready: str | None = None) -> Any:
        return self.start([*self.command, *command.split(), "--config", str(self.file)], ready=ready)

    def type_in(self, *words: str) -> subprocess.CompletedProcess[str]:
        asked = [*self.command, *words, "--config", str(self.file)]
        return subprocess.run(asked, capture_output=True, text=True, timeout=200, check=False)

    def erase(self, code: int) -> dict[str, Any]:
        done = self.type_in("erase", "--user", "ana", "--yes", "--json", "--by", "the test")
        assert done.returncode == code, done.stdout + done.stderr
        assert PLANTED not in done.stdout + done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def ask(self, user: str | None, session: str, text: str) -> str:
        told = {"user": user, "session": session, "tags": {"kind": "test", "note": text[:40]}}
        body = {"model": "watchkeeper", "messages": [{"role": "user", "content": text}], "watchkeeper": told}
        answer = requests.post(f"{self.settings.gateway.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        self.asked[answer.headers["x-request-id"]] = user or ""
        return answer.headers["x-request-id"]

    def say(self, request_id: str, **said: Any) -> None:
        answer = requests.post(
            f"{self.settings.gateway.url}/v1/feedback", json={"request_id": request_id, **said}, timeout=30
        )
        assert answer.status_code == 200, answer.text


@pytest.fixture
def house(
    tmp_path: Path,
    upstreams: Callable[[], Any],
    run_process: Callable[..., Any],
    free_port: Callable[[], int],
    watchkeeper: list[str],
    careless_sqlite: dict[str, str],
) -> House:
    upstream = upstreams()

    def say(messages: list[dict[str, Any]]) -> list[str]:
        heard = " ".join(message["content"] for message in messages)
        time.sleep(3 if "slowly" in messages[-1]["content"] else 0)
        return [f"You said: {messages[-1]['content']}", f" {PLANTED}answer" if PLANTED in heard else " Fine."]

    upstream.say = say
    file = tmp_path / "watchkeeper.toml"
    file.write_text(
        f"""
data = "{tmp_path / "data"}"
[gateway]
port = {free_port()}
[mlflow]
uri = "http://127.0.0.1:{free_port()}"
[evaluations]
min_n = 8
[stages]
embed = false
guard_in = false
guard_out = false
[[upstreams]]
name = "scripted"
base_url = "{upstream.url}"
model = "scripted"
"""
    )
    return House(load(file), file, watchkeeper, run_process, careless_sqlite)


def holding(folder: Path, text: str) -> list[str]:
    """The files that hold a text, in their bytes or, compressed, in a column of theirs."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(text.encode() in body for body in _bodies(path))
    ]


def _bodies(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield str(pq.ParquetFile(path).read().to_pydict()).encode()


def plant(house: House) -> tuple[Window, Window]:
    """Traffic of several people, and all that comes of it. The windows before ana came and since."""
    began = datetime.now(UTC)
    bens = [house.ask("ben", f"ben-{n}", f"What about the weather on day {n}?") for n in range(ROUNDS)]
    turned = datetime.now(UTC)
    anas = [house.ask("ana", f"{PLANTED}-{n}", f"Tell {PLANTED} about the refund {PLANTED}{n}") for n in range(ROUNDS)]
    anas.append(house.ask("ana", f"{PLANTED}-0", "And what else?"))
    house.ask(None, f"{PLANTED}-1", "Say it again, please")
    for request_id in anas:
        house.say(request_id, score=0, comment=f"{PLANTED}comment", user="ana")
    house.say(bens[0], label=f"{PLANTED}label", user="ana")
    house.say(uuid.uuid4().hex, label=f"{PLANTED}nowhere", user="ana")
    house.say(bens[1], score=1, comment="well said", user="ben")
    return Window(began, turned), Window(turned, datetime.now(UTC))


def learn(house: House, before: Window, since: Window) -> None:
    """Drift, dataset, experiment, gate: what is made of traffic."""
    drift = evaluate(house.settings, "drift", since, reference=before, now=datetime.now(UTC))
    assert drift.verdict == "fail", "an alert fires"
    assert PLANTED in drift.reason
    tracking = Tracking(house.settings.mlflow.uri)
    releases = Releases(tracking, house.settings.mlflow.prompt)
    releases.promote(releases.register(msgspec.structs.replace(BUILTIN, template="Be vague."), "one"))
    releases.register(msgspec.structs.replace(BUILTIN, template="Be exact."), "two")
    taken = dataset.from_traces(house.settings, "tag.kind = test", Window(before.start, since.end)).cases
    cases = dataset.create(tracking, house.settings, "everything", taken, frozen=True).dataset
    experiment.try_out(
        house.settings,
        tracking,
        cases,
        [releases.get("1"), releases.get("2")],
        live(house.settings),
        repeats=1,
        progress=lambda done, total: None,
        now=datetime.now(UTC),
        clock=lambda: datetime.now(UTC),
    )
    gate_releases(house.settings, "1", "2", load_policy(None), now=datetime.now(UTC))


def places(found: list[str]) -> set[str]:
    """Where in the house files are: `mlflow/artifacts`, `lake/scores`, `spool`, …"""
    return {"/".join(name.split("/")[: 2 if name.startswith(("lake", "mlflow")) else 1]) for name in found}


def others(house: House) -> dict[str, list[str]]:
    """What is there of ben's: rows by table, cases, rows of the experiment's table, traces."""
    lake, tracking = Lake(house.settings.lake_uri), Tracking(house.settings.mlflow.uri)
    mine = "SELECT request_id FROM interactions WHERE \"user\" = 'ben' OR prompt_text LIKE '%weather%'"
    found = {
        table: lake.query(f"SELECT request_id FROM {table} WHERE request_id IN ({mine}) ORDER BY ALL").column(0).to_pylist()
        for table in ("interactions", "scores")
    }
    found["feedback"] = lake.query("SELECT feedback_id FROM feedback WHERE \"user\" = 'ben'").column(0).to_pylist()
    found["traces"] = sorted(tracking.trace_ids(house.settings.mlflow.experiment))
    cases = dataset.load(tracking, house.settings, "everything").cases
    found["cases"] = [case.case_id for case in cases if "weather" in case.prompt]
    tables = (house.settings.data / "mlflow" / "artifacts").rglob("rows.json")
    rows = [row for table in tables for row in json.loads(table.read_bytes())["data"]]
    found["rows"] = sorted(str(row) for row in rows if "weather" in str(row))
    anas = {name for name, user in house.asked.items() if user != "ben"}
    return found | {"traces": [name for name in found["traces"] if name not in anas]}


def go_on(house: House, stopping: threading.Event) -> None:
    """Ben asks on and on, whatever is erased meanwhile."""
    asked = 0
    while not stopping.wait(0.2):
        asked += 1
        house.ask("ben", "on-and-on", f"What about the weather after {asked} hours?")


def test_a_persons_words_are_nowhere_after_an_erasure_that_was_killed_and_had_no_mlflow(
    house: House, wait_for: Callable[..., None]
) -> None:
    data = house.settings.data
    mlflow = house.mlflow()
    house.run("serve", f"{house.settings.gateway.url}/health/live")
    house.run("ship")
    before, since = plant(house)
    wait_for(lambda: verify(house.settings).ok and (data / DEAD_LETTERS).stat().st_size > 0, what="everything to arrive")
    learn(house, before, since)
    stores = {
        "sessions.sqlite-wal",
        "spool",
        "dead_letters.sqlite",
        "lake/interactions",
        "lake/evaluations",
        "lake/feedback",
    }
    assert places(holding(data, PLANTED)) >= stores | {"mlflow/artifacts", "mlflow/mlflow.db-wal"}, "it is everywhere"
    untouched = others(house)
    stopping = threading.Event()
    traffic = threading.Thread(target=go_on, args=(house, stopping))
    traffic.start()
    slow = threading.Thread(target=house.ask, args=("ana", f"{PLANTED}-2", f"Tell me slowly about {PLANTED}slow"))
    slow.start()
    mlflow.kill_all()
    house.ask("ana", f"{PLANTED}-3", f"MLflow never hears of {PLANTED}late")
    killed = house.run("erase --user ana --yes")
    wait_for((data / JOURNAL).exists, what="the erasure to begin")
    killed.kill()
    slow.join()
    first = house.erase(1)
    assert first["resumed"]
    assert [line for line in first["left"] if "MLflow" in line]
    assert places(holding(data, PLANTED)) <= {"mlflow/artifacts", "mlflow/mlflow.db", "mlflow/mlflow.db-wal"}

    house.mlflow()
    second = house.erase(0)
    assert holding(data, PLANTED) == []
    assert second["removed"]["mlflow.traces"] == 3 * (ROUNDS + 2), "and of replays"
    assert second["removed"]["mlflow.datasets"] == ROUNDS + 2
    stopping.set()
    traffic.join()
    wait_for(lambda: verify(house.settings).ok, what="the ledger to be complete again")
    ledger = verify(house.settings)
    assert (ledger.served, ledger.erased) == (len(house.asked), ROUNDS + 4)
    after = others(house)
    assert all(set(untouched[what]) <= set(after[what]) for what in untouched), "nothing of anybody else's went"
    assert (len(after["cases"]), len(after["rows"])) == (ROUNDS, 4 * ROUNDS)

    assert house.erase(0)["nothing"]
    assert holding(data, PLANTED) == [], "nor did anything come back"
    audit = [json.loads(line) for line in (data / AUDIT).read_text().splitlines()]
    assert [(line["by"], line["asked"]["kind"]) for line in audit] == [("the test", "user")] * 2
    assert '"ana"' not in (data / AUDIT).read_text()
