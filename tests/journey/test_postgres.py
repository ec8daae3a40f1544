"""MLflow on PostgreSQL: everything once, though the shipper is killed in mid-delivery and a letter has to be sent again.

Needs PostgreSQL's server programs (Debian's package `postgresql`); says so where they are missing.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
import requests

from watchkeeper.record import STAGES, Message, Record, Stage, Verdict, encode
from watchkeeper.settings import Mlflow, Settings, as_toml
from watchkeeper.telemetry.dead_letters import DeadLetter, DeadLetters
from watchkeeper.telemetry.ledger import verify
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.telemetry.sinks import refused_record
from watchkeeper.telemetry.spool import Spool
from watchkeeper.tracking import Tracking, server_command

NOON = 1_790_000_000_000_000


@pytest.fixture
def postgres(free_port: Callable[[], int]) -> Iterator[str]:
    """A server of its own on an empty folder; gives the URI of its database."""
    initdb = shutil.which("initdb") or next(iter(sorted(glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None)
    if initdb is None:
        pytest.skip("PostgreSQL is not on this machine (no initdb): apt-get install postgresql")
    # It refuses to run as root, and must be able to reach its folder.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="watchkeeper-postgres-"))
    if user:
        shutil.chown(folder, user)
    port, data = free_port(), folder / "data"

    def run(program: str, *arguments: str) -> None:
        command = [str(Path(initdb).with_name(program)), "-D", str(data), *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    run("initdb", "--auth", "trust", "--username", "postgres", "--no-sync")
    run("pg_ctl", "start", "--wait", "--log", str(folder / "log"), "--options", f"-p {port} -k {folder} -h 127.0.0.1")
    yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    run("pg_ctl", "stop", "--mode", "immediate")
    shutil.rmtree(folder)


def record(number: int) -> Record:
    return Record(
        request_id=f"{number:032x}",
        received_at=NOON + number * 1000,
        session=f"s{number % 9}",
        user='"u"' if number % 2 else None,
        prompt=(Message("user", "Who are you?\0"),),
        prompt_text="Who are you?\0",
        output_text="A model. \U0001f600",
        model="smol",
        upstream="local",
        input_tokens=11,
        output_tokens=5,
        total_ms=123.0,
        stages=tuple(Stage(name, 10.0 * index, 9.0) for index, name in enumerate(STAGES)),
        verdicts=(Verdict("pii", "prompt", "EMAIL", "flag", None, "email", "1"),),
    )


@pytest.mark.servers
def test_everything_arrives_once_in_an_mlflow_on_postgresql(
    tmp_path: Path,
    postgres: str,
    free_port: Callable[[], int],
    run_process: Callable[..., Any],
    wait_for: Callable[..., None],
    watchkeeper: list[str],
) -> None:
    settings = Settings(data=tmp_path / "data", mlflow=Mlflow(uri=f"http://127.0.0.1:{free_port()}", start=False))
    argv, environment = server_command(settings, tmp_path)
    at = argv.index("--backend-store-uri") + 1
    mlflow = run_process([*argv[:at], postgres, *argv[at + 1 :]], ready=f"{settings.mlflow.uri}/health", env=environment)
    records = [record(number) for number in range(1, 401)]

    async def fill() -> None:
        spool = Spool.open(settings.spool_folder, "w0", segment_bytes=200_000)
        for one in records:
            spool.accept(one.request_id, one.received_at)
            await spool.append(one)
        await spool.close()

    anyio.run(fill)
    config = tmp_path / "watchkeeper.toml"
    config.write_text(as_toml(settings))
    command = [*watchkeeper, "ship", "--config", str(config)]
    shipper = run_process(command)
    wait_for(lambda: count(postgres) > 20, what="a delivery under way")
    shipper.kill()
    assert subprocess.run([*command, "--once"], timeout=200, check=False).returncode == 0
    ledger = verify(settings)
    assert ledger.ok, ledger
    assert ledger.mlflow == count(postgres) == 400
    with psycopg.connect(postgres) as database:
        spans = database.execute("SELECT count(*), count(DISTINCT (trace_id, span_id)) FROM spans").fetchone()
    assert spans == (4400, 4400)
    _send_a_letter_again(settings, command)
    mlflow.stop()


def count(postgres: str) -> int:
    with psycopg.connect(postgres) as database:
        row = database.execute("SELECT count(*) FROM trace_info").fetchone()
        return int(row[0]) if row else 0


def _send_a_letter_again(settings: Settings, command: list[str]) -> None:
    """What was refused stood for by a trace with nothing in it; sent again it is whole in MLflow, in every column."""
    tracking = Tracking(settings.mlflow.uri)
    letter = record(401)
    experiment = tracking.experiment_id(settings.mlflow.experiment)
    headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": experiment}
    sent = requests.post(
        f"{settings.mlflow.uri}/v1/traces", data=export_request([refused_record(letter)]), headers=headers, timeout=60
    )
    assert sent.status_code == 200
    store = DeadLetters(settings.data)
    store.bury([DeadLetter(1, "mlflow", "HTTP 400", "u1", 1, letter.request_id, "record", encode(letter))])
    store.close()
    assert subprocess.run([*command, "--dead-letters"], timeout=120, check=False).returncode == 0
    with tracking.speaking() as client:
        trace = client.get_trace(f"tr-{letter.request_id}")
    assert trace.info.state.value == "OK"
    assert trace.info.request_preview == "Who are you?\ufffd"
    assert trace.info.token_usage == {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}
    assert trace.info.execution_duration == 123
    assert trace.info.tags["watchkeeper.action"] == "flag"
    assert trace.info.tags["mlflow.traceName"] == "default"
    assert len(trace.data.spans) == 11
    assert "refused_by_mlflow" not in str(trace.data.spans[0].attributes)
