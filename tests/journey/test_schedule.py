"""A simulated day of traffic, and a schedule that is killed again and again: every window is judged exactly once, in order,
with one finished run; every row is scored once, those that came late too."""

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Settings, load
from watchkeeper.tracking import server_command

pytestmark = pytest.mark.servers

ROWS = 4
SILENT = (3, 4, 5, 17)
PATIENCE_S = 200.0
SCORES = {
    "toxicity": ("toxicity.prompt", "toxicity.output"),
    "quality": ("grounded", "refusal", "repetition", "truncated"),
}
"""What each row gets from a job that scores."""


def config(folder: Path, mlflow: int, jobs: tuple[str, ...]) -> Path:
    file = folder / "watchkeeper.toml"
    listed = "".join(f'[[jobs]]\njob = "{job}"\nevery = "1h"\nmin_n = 3\n' for job in jobs)
    file.write_text(
        f'data = "{folder / "data"}"\n[mlflow]\nuri = "http://127.0.0.1:{mlflow}"\n[stages]\nembed = false\n{listed}'
    )
    return file


def fill(lake: Lake, day: datetime, hours: list[int], minute: int, rows: int = ROWS) -> None:
    at = [day + timedelta(hours=hour, minutes=minute, seconds=row) for hour in hours for row in range(rows)]
    records = [
        Record(
            request_id=f"{microseconds(time):032x}", received_at=microseconds(time), prompt_text=f"about {time:%H:%M:%S}",
            output_text="It is fine.", total_ms=5.0 + time.second,
        )
        for time in at
    ]  # fmt: skip
    lake.append("interactions", to_arrow(records))


def judged(lake: Lake) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.query("SELECT * FROM evaluations WHERE scheduled").to_pylist()
    return rows


def runs(settings: Settings) -> list[dict[str, Any]]:
    """All runs of the jobs that were not deleted, from MLflow itself."""
    api = f"{settings.mlflow.uri}/api/2.0/mlflow"
    name = {"experiment_name": f"{settings.mlflow.experiment}-jobs"}
    experiment = requests.get(f"{api}/experiments/get-by-name", name, timeout=10).json()["experiment"]["experiment_id"]
    asked = {"experiment_ids": [experiment], "max_results": 1000}
    found: list[dict[str, Any]] = requests.post(f"{api}/runs/search", json=asked, timeout=30).json()["runs"]
    return found


@pytest.mark.parametrize(
    ("jobs", "hours", "kills"),
    [(("quality", "latency", "drift"), 24, 6), pytest.param(("toxicity",), 24, 3, marks=pytest.mark.models)],
)
def test_a_schedule_that_is_killed_again_and_again_judges_each_window_once(
    tmp_path: Path,
    run_process: Callable[..., Any],
    free_port: Callable[[], int],
    watchkeeper: list[str],
    wait_for: Callable[..., None],
    jobs: tuple[str, ...],
    hours: int,
    kills: int,
) -> None:
    file = config(tmp_path, free_port(), jobs)
    settings = load(file)
    argv, env = server_command(settings, settings.data)
    run_process(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    command = [*watchkeeper, "schedule", "--config", str(file)]
    lake = Lake(settings.lake_uri)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = today - timedelta(days=1)
    fill(lake, day, [hour for hour in range(hours) if hour not in SILENT], 10)
    rng = random.Random(7)

    elapsed = (datetime.now(UTC) - timedelta(seconds=30) - day) // timedelta(hours=1)
    everything = len(jobs) * elapsed

    def reached(more: int, log: Path) -> None:
        goal = min(len(judged(lake)) + more, everything)
        wait_for(lambda: len(judged(lake)) >= goal, what=f"{goal} windows ({log})", within_s=PATIENCE_S)

    for kill in range(kills):
        process = run_process(command)
        reached(rng.randrange(1, 1 + hours * len(jobs) // (kills + 1)), process.log)
        time.sleep(rng.uniform(0, 0.4))
        if kill == 1:
            process.stop()  # told to end, in the middle of its work
            assert process.popen.returncode == 0
        process.kill()
        if kill == 2:
            fill(lake, day, [0], 20)  # its window has been judged

    # Of two at once, one is killed too.
    first, second = run_process(command), run_process([*command, "--data", str(settings.data)])
    reached(2, first.log)
    first.kill()
    reached(everything, second.log)
    second.stop()
    fill(lake, day, [1], 30)
    once = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=120)
    assert (once.returncode, once.stderr) == (0, "")

    rows = judged(lake)
    for job in jobs:
        mine = sorted((row for row in rows if row["job"] == job), key=lambda row: row["window_start"])
        assert len({row["judged_by"] for row in mine}) == 1
        starts = [row["window_start"] for row in mine]
        assert starts[0] == day
        assert starts == [day + timedelta(hours=number) for number in range(len(starts))]
        assert len(starts) >= elapsed
        times = [row["evaluated_at"] for row in mine]
        assert times == sorted(times)
        for number, row in enumerate(mine[:hours]):
            assert (row["n"] == 0) == (number in SILENT)
    named = [row["mlflow_run_id"] for row in rows if row["n"]]
    logged = runs(settings)
    assert sorted(run["info"]["run_id"] for run in logged) == sorted(named)
    assert {run["info"]["status"] for run in logged} == {"FINISHED"}
    assert {row["mlflow_run_id"] for row in rows if row["n"] == 0} == {None}
    names = [name for job in jobs for name in SCORES.get(job, ())]
    scores = lake.query("SELECT request_id, name FROM scores WHERE name IN (SELECT unnest($names))", {"names": names})
    counts = Counter((row["request_id"], row["name"]) for row in scores.to_pylist())
    assert set(counts.values()) <= {1}
    assert len(counts) == len(names) * lake.query("SELECT request_id FROM interactions").num_rows
    status = json.loads((settings.data / "schedule.json").read_text())
    assert {job: status["jobs"][job]["error"] for job in jobs} == dict.fromkeys(jobs)
