"""`watchkeeper release` as people type it: a file out, changed, and in again; what differs; what serves since when."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.settings import load
from watchkeeper.tracking import server_command

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


def test_a_release_goes_out_as_a_file_and_comes_back_better(
    tmp_path: Path, run_process: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    config = tmp_path / "watchkeeper.toml"
    config.write_text(f'data = "{tmp_path / "data"}"\n[mlflow]\nuri = "http://127.0.0.1:{free_port()}"\n')
    settings = load(config)
    argv, env = server_command(settings, settings.data)
    run_process(argv, ready=f"{settings.mlflow.uri}/health", env=env)

    def type_in(*words: str) -> subprocess.CompletedProcess[str]:
        asked = [sys.executable, "-m", "watchkeeper", "release", *words, "--config", str(config)]
        return subprocess.run(asked, capture_output=True, text=True, timeout=120)

    none = type_in("list")
    assert (none.returncode, none.stderr) == (0, "none is registered yet; builtin@0 serves\n")

    first = tmp_path / "first.toml"
    first.write_text("[grounding]\nk = 3\n")
    assert type_in("register", str(first), "--note", "three passages").returncode == 0

    shown = type_in("show", "2")
    assert shown.stdout.startswith("# watchkeeper@2, registered 20")
    assert "# three passages\n" in shown.stdout
    assert tomllib.loads(shown.stdout)["grounding"]["k"] == 3
    same = tmp_path / "same.toml"
    same.write_text(shown.stdout)
    twice = type_in("register", str(same))
    assert (twice.returncode, twice.stderr) == (2, "watchkeeper: nothing was registered: watchkeeper@2 has this content\n")
    better = tmp_path / "better.toml"
    better.write_text(shown.stdout.replace("max_tokens = 256", "max_tokens = 64"))
    made = json.loads(type_in("register", str(better), "--json").stdout)
    assert (made["release"], made["first"]) == ("watchkeeper@3", None)

    differs = type_in("diff", "champion", "3")
    assert differs.returncode == 0
    changed = [line for line in differs.stdout.splitlines() if line[0] in "+-" and not line.startswith(("---", "+++"))]
    assert changed == ["-max_tokens = 256", "+max_tokens = 64", "-k = 2", "+k = 3"]
    nothing = json.loads(type_in("diff", "3", "watchkeeper@3", "--json").stdout)
    assert nothing == {"base": "watchkeeper@3", "candidate": "watchkeeper@3", "same": True, "diff": ""}

    refused = type_in("promote", "3", "--json")
    assert (refused.returncode, json.loads(refused.stdout)["changed"]) == (1, False)
    assert "no gate has judged watchkeeper@3" in json.loads(refused.stdout)["refused"]
    assert type_in("promote", "3", "--override", "a test").returncode == 0
    listed = json.loads(type_in("list", "--json").stdout)["releases"]
    assert [(one["release"], one["aliases"], bool(one["serving_since"])) for one in listed] == [
        ("watchkeeper@3", ["champion"], True),
        ("watchkeeper@2", [], False),
        ("watchkeeper@1", [], False),
    ]
    wrong = type_in("show", "7")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("watchkeeper: there is no release '7'; there is watchkeeper@3, ")
