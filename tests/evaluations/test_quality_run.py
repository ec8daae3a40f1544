"""Quality as a user asks for it: `evaluate quality` with the packaged encoder and a real MLflow, and with no encoder."""

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Settings, load
from watchkeeper.tracking import server_command

pytestmark = [pytest.mark.servers, pytest.mark.models]

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
PAIRS = (
    ("How many days of leave do employees have?", "Employees have thirty days of leave in every year."),
    ("Where can I park my bicycle at the office?", "Bicycles can be parked in the cellar of the office building."),
    ("Who approves a travel expense report?", "Your team lead approves the report of travel expenses."),
)
ASTRAY = "Sourdough bread needs a warm kitchen and a night of rest before it is baked."


def fill(settings: Settings) -> None:
    """Thirty answers to their questions, ten about something else; ten sessions."""
    pairs = [PAIRS[number % 3] for number in range(30)] + [(PAIRS[number % 3][0], ASTRAY) for number in range(10)]
    records = [
        Record(
            request_id=f"{number:032x}",
            received_at=microseconds(NOON + timedelta(seconds=number)),
            session=f"s{number // 4}",
            prompt_text=prompt,
            output_text=answer,
            finish_reason="stop",
        )
        for number, (prompt, answer) in enumerate(pairs)
    ]
    Lake(settings.lake_uri).append("interactions", to_arrow(records))


def test_relevance_through_the_encoder_and_rows_that_wait_for_it(
    tmp_path: Path, free_port: Callable[[], int], run_process: Callable[..., Any], watchkeeper: list[str]
) -> None:
    encoder, mlflow = free_port(), free_port()
    config = tmp_path / "watchkeeper.toml"
    config.write_text(
        f'data = "{tmp_path / "data"}"\n[encoder]\nport = {encoder}\n[mlflow]\nuri = "http://127.0.0.1:{mlflow}"\n'
    )
    settings = load(config)
    argv, environment = server_command(settings, tmp_path)
    run_process(argv, ready=f"{settings.mlflow.uri}/health", env={**os.environ, **environment})
    fill(settings)

    def evaluate() -> subprocess.CompletedProcess[str]:
        window = ("--since", "2026-04-01T12:00", "--until", "2026-04-01T13:00")
        command = [*watchkeeper, "evaluate", "quality", *window, "--json", "--config", str(config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    away = evaluate()
    assert (away.returncode, away.stdout) == (2, "")
    assert away.stderr.strip().splitlines()[-1] == (
        f"watchkeeper: the encoder cannot be reached at http://127.0.0.1:{encoder}/v1: ConnectionError; "
        "start it with `watchkeeper encoder`, then run this again"
    )
    lake = Lake(settings.lake_uri)
    assert lake.query("SELECT * FROM scores WHERE scorer = 'relevance'").num_rows == 0
    assert lake.query("SELECT * FROM scores WHERE scorer = 'refusal'").num_rows == 40
    assert lake.query("SELECT * FROM evaluations").num_rows == 0

    run_process(
        [*watchkeeper, "encoder", "--config", str(config)], ready=f"http://127.0.0.1:{encoder}/health/ready", env=None
    )
    done = evaluate()
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["verdict"], document["n"], document["scored"]) == ("pass", 40, 40)
    assert document["metrics"]["relevance.n"] == 40
    assert 0 < document["metrics"]["relevance.flagged"] <= 10, "some of those that lead astray"
    assert "grounded.mean" not in document["metrics"], "no knowledge base was searched"
    values = lake.query("SELECT value FROM scores WHERE name = 'relevance' ORDER BY request_id").column("value").to_pylist()
    assert min(values[:30]) > 0.5 > 0.3 > max(values[30:])
    assert lake.query("SELECT * FROM scores WHERE scorer = 'refusal'").num_rows == 40
    assert lake.query("SELECT * FROM evaluations").num_rows == 1
