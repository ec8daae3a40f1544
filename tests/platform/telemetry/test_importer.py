"""An experiment of others comes into the lake once, whoever imports it, however often, and whatever dies in between."""

import json
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import Rollups
from watchkeeper.record import Record
from watchkeeper.serving.redact import Redactor
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.telemetry import spans
from watchkeeper.telemetry.importer import Imported, Importer
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.tracking import Tracking, server_command

EXPORT = Path(__file__).parents[1] / "serving" / "exports" / "mlflow.pb"
KEPT = "When does the library open? Write to [EMAIL]."
TRACES = 44

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def server(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """An MLflow in which an application logged 44 traces (the recorded export, again and again) to `help-desk`, beside one
    of ours and two that have nothing in them."""
    data = tmp_path_factory.mktemp("mlflow")
    settings = Settings(data=data, mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, data)
    process = module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    tracking = Tracking(settings.mlflow.uri)
    experiment = tracking.experiment_id("help-desk")
    sent = [again(number) for number in range(TRACES // 4)]
    ours = Record(request_id="0" * 31 + "1", received_at=1_790_000_000_000_000, prompt_text="Ours?", output_text="Ours.")
    for body in (*sent, export_request([ours]), nothing()):
        headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": experiment}
        assert requests.post(f"{tracking.uri}/v1/traces", body, headers=headers, timeout=60).status_code == 200
    yield SimpleNamespace(uri=tracking.uri, tracking=tracking)
    process.stop()


def again(number: int) -> bytes:
    """The recorded export, under other trace ids."""
    request = ExportTraceServiceRequest.FromString(EXPORT.read_bytes())
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.trace_id = bytes([number + 1]) + span.trace_id[1:]
    return bytes(request.SerializeToString())


def nothing() -> bytes:
    """Two traces of the recorded export, without any attribute."""
    request = ExportTraceServiceRequest.FromString(again(200))
    scoped = request.resource_spans[0].scope_spans[0]
    kept = [span for span in scoped.spans if not span.parent_span_id][:2]
    for span in kept:
        span.ClearField("attributes")
        span.status.code = 1
    del scoped.spans[:]
    scoped.spans.extend(kept)
    return bytes(request.SerializeToString())


@pytest.fixture
def settings(server: SimpleNamespace, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, mlflow=Mlflow(uri=server.uri))


def importer(settings: Settings, experiment: str = "help-desk") -> Importer:
    return Importer(settings, experiment, redact=Redactor(), language=lambda _: "en", clock=lambda: 2_000_000_000_000_000)


def ignore(done: Imported) -> None:
    pass


def rows(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        Lake(settings.lake_uri).query("SELECT * FROM interactions ORDER BY request_id").to_pylist()
    )
    return found


def counted(settings: Settings) -> int:
    return int(Rollups.read(Lake(settings.lake_uri), 0, 2_000_000_000_000_000, route="help-desk").n.sum())


def test_a_trace_that_breaks_us_costs_no_other_its_place(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assemble, seen = spans.assemble, list[str]()

    def breaks(name: str, *parts: Any, **more: Any) -> Record | None:
        seen.append(name)
        return assemble(name, *parts, **more) if len(seen) != 3 else breaks(name, 1 // 0)

    monkeypatch.setattr(spans, "assemble", breaks)
    done = importer(settings).run(0, ignore)
    assert done == Imported("help-desk", read=TRACES + 3, imported=TRACES - 1, ours=1, empty=2, unreadable=1)
    assert "ZeroDivisionError in breaks" in caplog.text


def test_traces_of_others_are_rows_like_any_other(settings: Settings, server: SimpleNamespace) -> None:
    seen: list[int] = []
    done = importer(settings).run(0, lambda done: seen.append(done.read))
    assert done == Imported("help-desk", read=TRACES + 3, imported=TRACES, ours=1, empty=2)
    assert seen
    found = rows(settings)
    assert len({row["request_id"] for row in found}) == len(found) == TRACES
    assert {(row["source"], row["route"]) for row in found} == {("mlflow", "help-desk")}
    assert Counter(row["error"] for row in found) == {None: TRACES * 3 // 4, "NotFoundError": TRACES // 4}
    assert all(row["prompt_text"] == KEPT for row in found)
    assert "ada.marl" not in json.dumps(found, default=str)
    assert Counter(len(row["sources"]) for row in found) == {0: TRACES * 3 // 4, 1: TRACES // 4}
    assert counted(settings) == TRACES
    trace_ids = set(server.tracking.trace_ids("help-desk"))
    assert {row["request_id"] for row in found} <= trace_ids


def test_a_second_import_finds_nothing_to_do_and_one_since_then_reads_nothing(settings: Settings) -> None:
    importer(settings).run(0, ignore)
    again = importer(settings).run(0, ignore)
    assert (again.imported, again.known) == (0, TRACES)
    newest = max(row["received_at"] for row in rows(settings))
    assert importer(settings).run(int(newest.timestamp() * 1000) + 1, ignore).imported == 0
    assert len(rows(settings)) == counted(settings) == TRACES


def test_imports_at_once_import_each_trace_once(settings: Settings) -> None:
    threads = [threading.Thread(target=importer(settings).run, args=(0, ignore)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(settings)) == counted(settings) == TRACES


class Died(Exception):
    """The process did."""


@pytest.mark.parametrize("table", ["interactions", "rollups"])
def test_one_that_dies_in_between_is_made_up_for(settings: Settings, monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    append = Lake.append

    def dying(lake: Lake, name: str, *arguments: Any, **options: Any) -> bool:
        if name == table:
            raise Died
        return append(lake, name, *arguments, **options)

    monkeypatch.setattr(Lake, "append", dying)
    with pytest.raises(Died):
        importer(settings).run(0, ignore)
    monkeypatch.undo()
    importer(settings).run(0, ignore)
    assert len(rows(settings)) == counted(settings) == TRACES


def test_the_command_says_what_it_did_in_one_document_and_what_is_wrong_in_one_line(
    settings: Settings, watchkeeper: list[str], free_port: Callable[[], int]
) -> None:
    def run(*words: str, uri: str = settings.mlflow.uri) -> subprocess.CompletedProcess[str]:
        options = ("--data", str(settings.data))
        command = [*watchkeeper, "import", "mlflow", *words, *options]
        return subprocess.run(command, capture_output=True, text=True, env=environment(uri), timeout=120)

    done = run("--experiment", "help-desk", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["imported"] == TRACES
    assert f"{TRACES + 3} traces read, {TRACES} imported" in done.stderr
    missing = run("--experiment", "nobody's")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == (
        f'watchkeeper: MLflow at {settings.mlflow.uri} has no experiment "nobody\'s"; name one with --experiment\n'
    )
    away = f"http://127.0.0.1:{free_port()}"
    gone = run("--experiment", "help-desk", uri=away)
    assert (gone.returncode, gone.stderr) == (2, f"watchkeeper: MLflow does not answer at {away}\n")
    wrong = run("--experiment", "help-desk", "--since", "yesterday")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("watchkeeper: --since: a time looks like")


def environment(uri: str) -> dict[str, str]:
    return {**os.environ, "WATCHKEEPER_MLFLOW__URI": uri}
