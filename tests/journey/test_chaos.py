"""Everything is killed, filled, locked, torn and cut off at random under traffic: 0 answered requests missing, 0 doubled.

What was answered is counted by the clients; MLflow's side is read off its database, the lake's by DuckDB over its files.
The short form is part of the suite; `make chaos` runs the long one. A failure names its seed: `CHAOS_SEED=… make chaos`.
"""

import contextlib
import json
import os
import random
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from chaos import CLOCK, Clients, Kept, World, answers, play, small_disks
from deltalake import DeltaTable

from watchkeeper.settings import Settings, load
from watchkeeper.tracking import server_command

FAULTS = int(os.environ.get("CHAOS_FAULTS", "18"))
SEED = int(os.environ.get("CHAOS_SEED", str(random.SystemRandom().randrange(10**6))))
LONG = FAULTS > 50
PAUSE_S = (1.0, 8.0) if LONG else (0.5, 3.0)
DRAIN_S = 900.0 if LONG else 240.0
MB = 1_000_000

pytestmark = [pytest.mark.servers, pytest.mark.timeout(3 * 3600 if LONG else 600)]


def config(folder: Path, upstream: str, gateway: int, mlflow: int) -> Path:
    file = folder / "watchkeeper.toml"
    off = "\n".join(f"{stage} = false" for stage in ("preprocess", "embed", "ground", "guard_in", "check", "guard_out"))
    file.write_text(
        f'data = "{folder / "data"}"\n[gateway]\nport = {gateway}\nworkers = 2\nmax_spool_bytes = 64_000_000\n'
        f'[mlflow]\nuri = "http://127.0.0.1:{mlflow}"\n[stages]\n{off}\n'
        f'[[upstreams]]\nname = "scripted"\nbase_url = "{upstream}"\nmodel = "scripted"\n'
    )
    return file


@pytest.fixture
def world(
    tmp_path: Path, upstreams: Callable[[], Any], free_port: Callable[[], int], watchkeeper: list[str]
) -> Iterator[tuple[World, Path]]:
    rng = random.Random(SEED)
    data = tmp_path / "data"
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("<q", 0))
    stepping = {"CHAOS_CLOCK": str(clock), "PYTHONPATH": f"{CLOCK}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with small_disks([(data, 1_500 * MB if LONG else 600 * MB), (data / "spool", 24 * MB)]) as mounted:
        file = config(tmp_path, upstreams().url, free_port(), free_port())
        settings = load(file)
        command, env = server_command(settings, settings.data)

        def start(name: str, argv: list[str], extra: dict[str, str]) -> Callable[[], subprocess.Popen[bytes]]:
            def run() -> subprocess.Popen[bytes]:
                with (tmp_path / f"{name}.log").open("ab") as log:
                    return subprocess.Popen(
                        argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **extra}
                    )

            return run

        commands = {
            "mlflow": start("mlflow", command, env),
            "ship": start("ship", [*watchkeeper, "ship", "--config", str(file)], stepping),
            "serve": start("serve", [*watchkeeper, "serve", "--config", str(file)], stepping),
        }
        processes = {name: Kept(name, begin, lambda: rng.uniform(0.0, 2.0)) for name, begin in commands.items()}
        stop = threading.Event()
        made = World(settings, processes, clock, rng, LONG, mounted)
        keeper = threading.Thread(target=made.keep, args=(stop,), daemon=True)
        keeper.start()
        try:
            yield made, file
        finally:
            stop.set()
            keeper.join()
            for process in processes.values():
                process.kill(below=True)


def test_whatever_breaks_no_answered_request_is_missing_or_doubled(
    world: tuple[World, Path], wait_for: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    made, file = world
    settings = made.settings
    disks = "small disks mounted" if made.mounted else "no disk could be mounted: FULL DISKS ARE NOT AMONG THE FAULTS"
    tell(capsys, f"chaos: seed {SEED}, {FAULTS} faults, {disks}")
    wait_for(
        lambda: answers(f"{settings.gateway.url}/health/live") and answers(f"{settings.mlflow.uri}/health"), what="a start"
    )
    clients = Clients(settings.gateway.url, 0.3 if LONG else 0.05)
    traffic = threading.Thread(target=clients.run, name="clients", daemon=True)
    traffic.start()
    began = time.monotonic()
    faults = play(made, FAULTS, PAUSE_S)
    time.sleep(2.0)
    clients.stopping = True
    traffic.join(120)
    assert not traffic.is_alive()
    tell(
        capsys,
        f"chaos: {dict(faults)} in {time.monotonic() - began:.0f} s; {len(clients.answered)} requests answered, "
        f"refused {dict(clients.refused)} ({dict(clients.reasons)}), {len(clients.said)} feedback taken, "
        f"starts { ({name: process.starts for name, process in made.processes.items()}) }",
    )
    began = time.monotonic()
    torn = list(settings.spool_folder.glob("ghost-*"))
    wait_for(lambda: len(list(settings.spool_folder.glob("*/*.torn"))) >= len(torn), what="torn files being mended")
    named = json.loads((settings.data / "shipper.json").read_bytes())["unreadable"]
    for path in settings.spool_folder.glob("*/*.torn*"):
        assert path.suffix != ".torn" or str(path) in named
        path.unlink()  # as somebody does who has read what is lost
    wait_for(lambda: drained(file), what=f"a clean ledger: {verified(file)}", within_s=DRAIN_S)
    assert made.processes["serve"].stop() == 0
    wait_for(lambda: drained(file), what="a clean ledger after the gateway's end", within_s=60)
    wait_for(lambda: set(clients.said) <= assessments(settings).keys(), what="all feedback", within_s=60)
    tell(capsys, f"chaos: drained in {time.monotonic() - began:.0f} s")
    assert made.processes["ship"].stop() == 0

    assert faults.total() >= FAULTS
    assert len(clients.answered) > 100
    lake = {row["request_id"]: row for row in rows(settings, "interactions", "request_id, error, prompt_text")}
    counts = Counter(row["request_id"] for row in rows(settings, "interactions", "request_id"))
    traces = in_mlflow(settings)
    missing = {"lake": clients.answered.keys() - lake.keys(), "mlflow": clients.answered.keys() - traces.keys()}
    doubled = {
        "lake": [name for name, count in counts.items() if count > 1],
        "mlflow": [name for name, names in traces.items() if len(names) != len(set(names))],
    }
    tell(
        capsys,
        f"chaos: in the lake {len(lake)}, in MLflow {len(traces)}; missing {sum(map(len, missing.values()))}, "
        f"doubled {sum(map(len, doubled.values()))}",
    )
    assert missing == {"lake": set(), "mlflow": set()}
    assert doubled == {"lake": [], "mlflow": []}
    assert traces.keys() == lake.keys(), "neither has what the other lacks"
    for name, number in clients.answered.items():
        assert lake[name]["error"] is None, f"{name} was answered, and its record says {lake[name]['error']}"
        assert f"question {number} of" in lake[name]["prompt_text"], "another request's record"
    assert rows(settings, "rollups", "sum(n)::BIGINT AS n") == [{"n": len(lake)}], "nor do the charts count anything twice"
    for name, whole in made.ghosts.items():
        assert not whole or lake[name]["error"] is None, "a record that was whole in a torn file"
        assert whole or name not in lake or lake[name]["error"] == "torn"
    said = Counter(row["feedback_id"] for row in rows(settings, "feedback", "feedback_id")) if clients.said else Counter()
    assert {name: (said[name], assessments(settings)[name]) for name in clients.said} == dict.fromkeys(clients.said, (1, 1))


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """The figures, also when the test passes."""
    with capsys.disabled():
        print(f"\n{line}", flush=True)


def verified(file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "watchkeeper", "verify", "--json", "--config", str(file)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300)
    document: dict[str, Any] = json.loads(shown.stdout) if shown.stdout else {"ok": False, "stderr": shown.stderr}
    return document


def drained(file: Path) -> bool:
    time.sleep(2.0)
    return bool(verified(file)["ok"])


def rows(settings: Settings, table: str, columns: str) -> list[dict[str, Any]]:
    """Rows of a lake table, read with DuckDB from the files of its newest version."""
    files = DeltaTable(f"{settings.lake_uri}/{table}").file_uris()
    found = duckdb.connect().execute(f"SELECT {columns} FROM read_parquet(?, union_by_name = true)", [files])
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def database(settings: Settings) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(settings.data / "mlflow" / "mlflow.db", timeout=30))


def in_mlflow(settings: Settings) -> dict[str, list[str]]:
    """The request ids that MLflow has traces of, and each trace's spans by name."""
    with database(settings) as mlflow:
        found: dict[str, list[str]] = {name: [] for (name,) in mlflow.execute("SELECT request_id FROM trace_info")}
        for name, span in mlflow.execute("SELECT trace_id, name FROM spans"):
            found[name].append(span)
    return {name.removeprefix("tr-"): spans for name, spans in found.items()}


def assessments(settings: Settings) -> Counter[str]:
    """The ids of feedback in MLflow, and how often each is there."""
    with database(settings) as mlflow:
        found = [json.loads(text or "{}") for (text,) in mlflow.execute("SELECT assessment_metadata FROM assessments")]
    return Counter(str(metadata.get("watchkeeper.feedback_id")) for metadata in found)
