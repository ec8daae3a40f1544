"""Releases as an operator works with them, against real servers: gateways follow MLflow's alias within five seconds; with
MLflow gone they serve the last release, promotions say so, and every trace arrives when it is back."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import requests

from watchkeeper.lake.experiments import Trial, trial_rows
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.releases import release_events
from watchkeeper.lake.rollup import Rollups
from watchkeeper.lake.tables import COMPARISONS
from watchkeeper.settings import Settings, load
from watchkeeper.tracking import Tracking, server_command
from watchkeeper.tracking.prompts import Releases

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

FOLLOWED_S = 5.0


@dataclass
class SetUp:
    """One deployment. `command`: what comes before a command's own words."""

    settings: Settings
    file: Path
    url: str
    upstream: Any
    command: list[str]
    run_process: Callable[..., Any]

    def start_mlflow(self) -> Any:
        argv, env = server_command(self.settings, self.settings.data)
        return self.run_process(argv, ready=f"{self.settings.mlflow.uri}/health", env=env)

    def start_gateway(self) -> Any:
        return self.run_process([*self.command, "serve", "--config", str(self.file)], ready=f"{self.url}/health/live")

    def type_in(self, *words: str) -> subprocess.CompletedProcess[str]:
        asked = [*self.command, *words, "--config", str(self.file)]
        return subprocess.run(asked, capture_output=True, text=True, timeout=120)

    def ask(self, model: str = "watchkeeper", **about: str) -> tuple[str, str]:
        """One request → its id, and the release that served it. `about`: session, user, route."""
        messages = [{"role": "user", "content": f"Hello {uuid.uuid4()}"}]
        body = {"model": model, "messages": messages, "watchkeeper": about}
        response = requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=30)
        assert response.status_code == 200, response.text
        return response.headers["x-request-id"], response.headers["x-watchkeeper-release"]


@pytest.fixture
def set_up(
    tmp_path: Path,
    upstreams: Callable[[], Any],
    run_process: Callable[..., Any],
    free_port: Callable[[], int],
    watchkeeper: list[str],
) -> SetUp:
    upstream, port = upstreams(), free_port()
    file = tmp_path / "watchkeeper.toml"
    file.write_text(
        f"""
data = "{tmp_path / "data"}"
[gateway]
port = {port}
[mlflow]
uri = "http://127.0.0.1:{free_port()}"
[stages]
embed = false
ground = false
guard_in = false
guard_out = false
[[upstreams]]
name = "scripted"
base_url = "{upstream.url}"
model = "scripted"
"""
    )
    return SetUp(load(file), file, f"http://127.0.0.1:{port}", upstream, watchkeeper, run_process)


def followed(set_up: SetUp, release: str) -> float:
    """Seconds until a request is served by `release`."""
    started = time.monotonic()
    while set_up.ask()[1] != release:
        assert time.monotonic() - started < FOLLOWED_S, f"not followed within {FOLLOWED_S} s"
        time.sleep(0.1)
    return time.monotonic() - started


def passed(settings: Settings, base: str, candidate: str) -> None:
    """What an experiment and its gate leave in the lake that let `candidate` pass against `base`; both are digests."""
    now, lake = datetime.now(UTC), Lake(settings.lake_uri)
    tried = [
        Trial(
            experiment_id="experiment-1", started_at=now, ended_at=now, dataset="d", dataset_digest="d" * 64,
            release=release, digest=digest, n=9, failed=0, metrics={}, mlflow_run_id="run", mlflow_parent_id="parent",
        )
        for release, digest in (("watchkeeper@1", base), ("watchkeeper@2", candidate))
    ]  # fmt: skip
    lake.append("experiments", trial_rows(tried))
    row = {"date": now.date(), "comparison_id": "c1", "compared_at": now, "experiment_id": "experiment-1",
           "verdict": "pass", "reason": "", "base_digest": base, "candidate_digest": candidate}  # fmt: skip
    lake.append("comparisons", pa.Table.from_pylist([row], schema=COMPARISONS))


@pytest.mark.alone
def test_releases_from_registration_to_rollback_with_mlflow_killed_in_between(
    set_up: SetUp, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    mlflow = set_up.start_mlflow()
    set_up.run_process([*set_up.command, "ship", "--config", str(set_up.file)])
    gateway = set_up.start_gateway()
    served: dict[str, str] = dict([set_up.ask()])
    assert list(served.values()) == ["builtin@0"]

    # Register: what served is version 1 and champion, the new one serves whoever names it.
    better = tmp_path / "better.toml"
    better.write_text('template = "Answer better."\n[parameters]\nmax_tokens = 9\n')
    registered = set_up.type_in("release", "register", str(better), "--note", "better answers", "--json")
    assert registered.returncode == 0, registered.stderr
    made = json.loads(registered.stdout)
    assert (made["release"], made["first"], made["untold"]) == ("watchkeeper@2", "watchkeeper@1", [])
    followed(set_up, "watchkeeper@1")
    published = set_up.settings.data / "releases" / "watchkeeper@2.json"
    wait_for(published.exists, what="the new release to be published", within_s=15)
    named = set_up.ask("watchkeeper@2")
    assert named[1] == "watchkeeper@2"
    assert set_up.upstream.bodies[-1]["messages"][0]["content"] == "Answer better."
    served |= dict([named])

    # Promote: only on a gate's evidence; every gateway follows.
    refused = set_up.type_in("release", "promote", "watchkeeper@2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(
        "watchkeeper: no gate has judged watchkeeper@2 against watchkeeper@1, which serves; run: "
    )
    assert len(refused.stderr.splitlines()) == 1
    listed = json.loads(set_up.type_in("release", "list", "--json").stdout)
    digests = {release["release"]: release["digest"] for release in listed["releases"]}
    assert listed["serving"] == {"release": "watchkeeper@1", "digest": digests["watchkeeper@1"]}
    passed(set_up.settings, digests["watchkeeper@1"], digests["watchkeeper@2"])
    promoted = set_up.type_in("release", "promote", "watchkeeper@2", "--reason", "better", "--json")
    assert promoted.returncode == 0, promoted.stderr
    followed(set_up, "watchkeeper@2")

    # From the moment at which the alias moves, whoever moves it.
    releases = Releases(Tracking(set_up.settings.mlflow.uri), "watchkeeper")
    for ref in ("watchkeeper@1", "watchkeeper@2", "watchkeeper@1", "watchkeeper@2"):
        releases.promote(releases.get(ref))
        print(f"{ref} followed after {followed(set_up, ref):.1f} s")

    # MLflow dies: the last release serves, also after a restart; promotions say why not; nothing is lost.
    mlflow.kill_all()
    served |= dict(set_up.ask() for _ in range(5))
    gateway.stop()
    set_up.start_gateway()
    again = dict(set_up.ask() for _ in range(5))
    assert set(again.values()) == {"watchkeeper@2"}
    assert set_up.ask("watchkeeper@1")[1] == "watchkeeper@1"
    served |= again
    for words in (("promote", "watchkeeper@1", "--override", "x"), ("rollback", "--reason", "x"), ("list",)):
        away = set_up.type_in("release", *words)
        said = f"watchkeeper: MLflow does not answer at {set_up.settings.mlflow.uri}\n"
        assert (away.returncode, away.stdout, away.stderr) == (2, "", said)

    def status() -> dict[str, Any]:
        plain: dict[str, Any] = json.loads((set_up.settings.data / "shipper.json").read_text())
        return plain

    wait_for(
        lambda: "MLflow does not answer" in (status()["releases"]["error"] or ""), what="the shipper's word", within_s=15
    )
    assert set_up.ask()[1] == "watchkeeper@2"

    # And comes back: everything arrives, and a rollback is followed.
    set_up.start_mlflow()
    wait_for(lambda: json.loads(set_up.type_in("verify", "--json").stdout)["ok"], what="a clean ledger")
    wait_for(lambda: status()["releases"]["error"] is None, what="the publisher to be back", within_s=15)
    assert status()["releases"]["champion"] == "watchkeeper@2"
    back = set_up.type_in("release", "rollback", "--reason", "worse after all", "--json")
    assert (back.returncode, json.loads(back.stdout)["release"]) == (0, "watchkeeper@1")
    followed(set_up, "watchkeeper@1")

    rows = Lake(set_up.settings.lake_uri).query("SELECT request_id, release, digest FROM interactions").to_pylist()
    stamped = {row["request_id"]: row["release"] for row in rows}
    assert {name: stamped[name] for name in served} == served
    assert {row["digest"] for row in rows if row["release"] == "watchkeeper@2"} == {digests["watchkeeper@2"]}


@pytest.mark.timeout(600)
def test_a_canary_serves_its_share_of_the_sessions_until_it_is_stopped_or_promoted(
    set_up: SetUp, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    set_up.start_mlflow()
    set_up.run_process([*set_up.command, "ship", "--config", str(set_up.file)])
    set_up.start_gateway()
    better = tmp_path / "better.toml"
    better.write_text('template = "Answer better."\n')
    assert set_up.type_in("release", "register", str(better)).returncode == 0
    wait_for(lambda: set_up.ask()[1] == "watchkeeper@1", what="the first release to be followed", within_s=20)
    sessions = [f"session-{number}" for number in range(100)]

    def by_session(model: str = "watchkeeper") -> dict[str, str]:
        asked = [(session, set_up.ask(model, session=session)) for session in sessions]
        served.update(dict(answered for _, answered in asked))
        return {session: release for session, (_, release) in asked}

    def canary(*words: str, code: int = 0) -> dict[str, Any]:
        done = set_up.type_in("release", "canary", *words, "--json")
        assert done.returncode == code, done.stderr
        plain: dict[str, Any] = json.loads(done.stdout) if code == 0 else {"said": done.stderr}
        return plain

    def wait_until(at_least: int, at_most: int) -> None:
        wait_for(lambda: at_least <= challenged(by_session()) <= at_most, what="the share to be followed", within_s=20)

    def challenged(releases: dict[str, str]) -> int:
        return sum(release == "watchkeeper@2" for release in releases.values())

    # It starts: some sessions get it, always the same, and who names a model is asked nothing.
    served: dict[str, str] = {}
    assert challenged(by_session()) == 0
    started = canary("watchkeeper@2", "--share", "0.3", "--reason", "a try")
    assert (started["champion"], started["challenger"], started["share"]) == ("watchkeeper@1", "watchkeeper@2", 0.3)
    wait_until(12, 48)  # 30 +- 4 standard deviations
    first = by_session()
    assert by_session() == first, "a session stays with its release"
    assert set(by_session("watchkeeper@1").values()) == set(by_session("scripted").values()) == {"watchkeeper@1"}
    said = {body["messages"][0]["content"] for body in set_up.upstream.bodies[-200:]}
    assert "Answer better." not in said
    doctor = set_up.type_in("doctor", "--json").stdout
    assert "watchkeeper@1 serves, watchkeeper@2 serves 0.3 of the requests that name none" in doctor

    # More of it: nobody who had it loses it. What cannot be is one line.
    assert canary("2", "--share", "0.5")["before"] == {"challenger": "watchkeeper@2", "share": 0.3}
    wait_until(challenged(first) + 1, 70)
    more = by_session()
    assert {session for session in sessions if first[session] == "watchkeeper@2" != more[session]} == set()
    for words, why in (
        (("2", "--share", "0.6"), "at most 0.5"),
        (("2",), "needs both"),
        (("1", "--share", "0.1"), "watchkeeper@1 is the champion"),
        (("7", "--share", "0.1"), "there is no release '7'"),
        (("--stop", "--share", "0.1"), "takes neither"),
    ):
        told = canary(*words, code=2)["said"]
        assert why in told
        assert len(told.splitlines()) == 1
    assert canary()["share"] == 0.5

    # It is stopped, and again; a promotion ends one too.
    assert canary("--stop")["before"] == {"challenger": "watchkeeper@2", "share": 0.5}
    wait_until(0, 0)
    assert canary("--stop") == {**canary(), "before": None}
    canary("2", "--share", "0.2")
    promoted = json.loads(set_up.type_in("release", "promote", "2", "--override", "a test", "--json").stdout)
    assert (promoted["release"], promoted["canary_ended"]) == ("watchkeeper@2", "watchkeeper@2")
    wait_until(100, 100)
    assert (canary()["challenger"], canary()["champion"]) == (None, "watchkeeper@2")
    listed = json.loads(set_up.type_in("release", "list", "--json").stdout)["releases"]
    assert [one["aliases"] for one in listed] == [["champion"], []], "the alias goes"
    assert not (set_up.settings.data / "challenger.json").exists()

    # Records, rollups and the log tell them apart.
    wait_for(lambda: json.loads(set_up.type_in("verify", "--json").stdout)["ok"], what="a clean ledger")
    lake = Lake(set_up.settings.lake_uri)
    rows = lake.query("SELECT request_id, release FROM interactions").to_pylist()
    kept = {row["request_id"]: row for row in rows}
    assert {name: kept[name]["release"] for name in served} == served
    now, day = datetime.now(UTC), timedelta(days=1)
    for release in ("watchkeeper@1", "watchkeeper@2"):
        counted = int(Rollups.read(lake, now - day, now + day, release=release).n.sum())
        assert counted == sum(row["release"] == release for row in rows) > 50
    log = [(event["event"], event["release"], event["reason"]) for event in release_events(lake).to_pylist()]
    assert log[::-1][3:] == [
        ("canary_started", "watchkeeper@2", "0.3 of the requests; a try"),
        ("canary_started", "watchkeeper@2", "0.5 of the requests"),
        ("canary_ended", "watchkeeper@2", "0.5 of the requests"),
        ("canary_started", "watchkeeper@2", "0.2 of the requests"),
        ("canary_ended", "watchkeeper@2", "0.2 of the requests; a promotion ended it"),
        ("promoted", "watchkeeper@2", "a test"),
    ]
