"""From a thumb to MLflow and back on screen: real servers, a shipper that is killed, a browser in both schemes."""

import contextlib
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import requests
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings, load
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.tracking import Tracking, server_command

pytestmark = pytest.mark.servers

PLANTED = "carla.planted@example.com"
ARGUMENTS = ("--no-sandbox", "--disable-background-networking", "--disable-gpu", "--no-first-run", "--disable-sync")


@dataclass
class House:
    """Real servers on one data folder."""

    settings: Settings
    file: Path
    command: list[str]
    start: Callable[..., Any]

    @property
    def gateway(self) -> str:
        return self.settings.gateway.url

    def run(self, command: str, ready: str | None = None) -> Any:
        return self.start([*self.command, command, "--config", str(self.file)], ready=ready)

    def mlflow(self) -> Any:
        argv, env = server_command(self.settings, self.settings.data)
        return self.start(argv, ready=f"{self.settings.mlflow.uri}/health", env=env)

    def ask(self) -> str:
        body = {"model": "watchkeeper", "messages": [{"role": "user", "content": "Hello"}]}
        answer = requests.post(f"{self.gateway}/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == 200
        return answer.headers["x-request-id"]

    def say(self, request_id: str, **said: Any) -> str:
        answer = requests.post(f"{self.gateway}/v1/feedback", json={"request_id": request_id, **said}, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["request_id"] == request_id
        return str(answer.json()["id"])

    def in_lake(self) -> Counter[str]:
        rows = Lake(self.settings.lake_uri).query("SELECT feedback_id FROM feedback").column(0).to_pylist()
        return Counter(rows)

    def in_mlflow(self, request_ids: list[str]) -> Counter[str]:
        """The ids of all feedback on these traces, as MLflow's own client reads them."""
        found: Counter[str] = Counter()
        with Tracking(self.settings.mlflow.uri).speaking() as client:
            experiment = client.get_experiment_by_name(self.settings.mlflow.experiment)
            if experiment is None:
                return found  # the shipper has not got to MLflow yet
            places = [experiment.experiment_id]
            for trace in client.search_traces(locations=places, max_results=500, include_spans=False):
                if trace.info.trace_id.removeprefix("tr-") in request_ids:
                    found.update(one.metadata["watchkeeper.feedback_id"] for one in trace.info.assessments)
        return found


@pytest.fixture
def house(
    tmp_path: Path,
    upstreams: Callable[[], Any],
    run_process: Callable[..., Any],
    free_port: Callable[[], int],
    watchkeeper: list[str],
) -> House:
    file = tmp_path / "watchkeeper.toml"
    file.write_text(
        f"""
data = "{tmp_path / "data"}"
[gateway]
port = {free_port()}
[dashboard]
port = {free_port()}
[mlflow]
uri = "http://127.0.0.1:{free_port()}"
[stages]
embed = false
ground = false
guard_in = false
guard_out = false
[[upstreams]]
name = "scripted"
base_url = "{upstreams().url}"
model = "scripted"
"""
    )
    return House(load(file), file, watchkeeper, run_process)


def bytes_under(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_what_was_said_is_everywhere_once_though_the_shipper_is_killed(house: House, wait_for: Callable[..., None]) -> None:
    mlflow = house.mlflow()
    house.run("serve", f"{house.gateway}/health/live")
    shipper = house.run("ship")
    asked: list[str] = []
    said: list[str] = []
    for number in range(40):
        asked.append(house.ask())
        comment = f"{number}: write to {PLANTED}"
        said.append(house.say(asked[-1], score=number % 2, comment=comment, user=PLANTED))
        said.append(house.say(asked[number // 2], label=f"again {number}"))
        if number in (10, 30):
            shipper.kill()
            shipper = house.run("ship")
        if number == 15:
            mlflow.kill_all()
        if number == 25:
            mlflow = house.mlflow()
    expected = Counter(said)
    wait_for(lambda: house.in_lake() == expected, what="feedback in the lake, once each")
    wait_for(lambda: house.in_mlflow(asked) == expected, what="feedback in MLflow, once each")
    shipper.stop()
    again = subprocess.run([*house.command, "ship", "--once", "--config", str(house.file)], timeout=120, check=False)
    assert again.returncode == 0
    assert (house.in_lake(), house.in_mlflow(asked)) == (expected, expected)
    with contextlib.closing(DeadLetters(house.settings.data, writable=False)) as dead:
        assert list(dead) == []
    assert bytes_under(house.settings.data, PLANTED) == []
    assert bytes_under(house.settings.data, "write to [EMAIL]"), "it is what stands there instead"
    asked_ledger = [*house.command, "verify", "--json", "--config", str(house.file)]
    ledger = subprocess.run(asked_ledger, capture_output=True, text=True, timeout=120, check=False)
    assert ledger.returncode == 0, ledger.stdout


def watch(page: Page, complaints: list[str]) -> None:
    """Notes what the page's console says that it should not."""

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    page.on("console", note)


def test_a_thumb_on_the_trace_page_comes_back_to_it(house: House, wait_for: Callable[..., None]) -> None:
    dashboard = f"http://127.0.0.1:{house.settings.dashboard.port}"
    house.run("serve", f"{house.gateway}/health/live")
    house.run("ship")
    house.run("dashboard", f"{dashboard}/health/live")
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        cases: tuple[tuple[Literal["light", "dark"], str, str], ...] = (
            ("light", "Good answer", "Good"),
            ("dark", "Bad answer", "Bad"),
        )
        for scheme, button, shown in cases:
            request_id = house.ask()
            context = browser.new_context(color_scheme=scheme, locale="en-US")
            page = context.new_page()
            complaints: list[str] = []
            watch(page, complaints)
            page.goto(f"{dashboard}/traces/{request_id}")
            expect(page.get_by_text("Nobody has said anything yet.")).to_be_visible()
            comment = page.get_by_label("Comment, if you like")
            comment.fill(f"ask {PLANTED} <b>now</b>")
            page.get_by_role("button", name=button).click()
            expect(page.get_by_text("Recorded; it appears here within seconds.")).to_be_visible()
            expect(comment).to_have_value("")
            row = page.get_by_role("table", name="Feedback on this answer").get_by_role("row").nth(1)
            expect(row).to_contain_text(shown, timeout=30_000)
            expect(row).to_contain_text("ask [EMAIL] <b>now</b>")
            expect(page.get_by_text("Recorded; it appears here within seconds.")).to_have_count(0)
            assert complaints == []
            context.close()
        browser.close()
    scores = Lake(house.settings.lake_uri).query("SELECT score FROM feedback ORDER BY received_at").column(0).to_pylist()
    assert scores == [1.0, 0.0]
    assert bytes_under(house.settings.data, PLANTED) == []
