"""`watchkeeper ship --dead-letters` as people type it: what it says, and with which exit code."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.telemetry.dead_letters import DeadLetter, DeadLetters


def typed(watchkeeper: list[str], data: Path, uri: str, *words: str) -> subprocess.CompletedProcess[str]:
    config = data / "watchkeeper.toml"
    config.write_text(f'[mlflow]\nuri = "{uri}"\n')
    command = [*watchkeeper, "ship", *words, "--config", str(config), "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def away(free_port: Callable[[], int]) -> str:
    return f"http://127.0.0.1:{free_port()}"


def test_without_letters_all_is_well(watchkeeper: list[str], tmp_path: Path, away: str) -> None:
    done = typed(watchkeeper, tmp_path, away, "--dead-letters", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "taken": {"mlflow": 0, "lake": 0},
        "refused": [],
        "errors": {},
        "left": 0,
        "ok": True,
    }


def test_letters_that_stay_are_told_with_the_reason(watchkeeper: list[str], tmp_path: Path, away: str) -> None:
    store = DeadLetters(tmp_path)
    store.bury([DeadLetter(1, sink, "refused", "u1", 1, "0a" * 16, "record", b"no record") for sink in ("mlflow", "lake")])
    store.close()
    done = typed(watchkeeper, tmp_path, away, "--dead-letters", "--json")
    assert done.returncode == 1
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["taken"] == {"mlflow": 0, "lake": 0}
    assert [(one["sink"], one["request_id"]) for one in told["refused"]] == [("mlflow", "0a" * 16), ("lake", "0a" * 16)]
    assert (told["left"], told["ok"]) == (1, False)
    shown = typed(watchkeeper, tmp_path, away, "--dead-letters")
    assert shown.returncode == 1
    assert "refused again" in shown.stdout
    assert "1 letters are left" in shown.stderr


def test_json_without_letters_to_send_is_wrong_use(watchkeeper: list[str], tmp_path: Path, away: str) -> None:
    done = typed(watchkeeper, tmp_path, away, "--json")
    assert done.returncode == 2
    assert "--dead-letters" in done.stderr
