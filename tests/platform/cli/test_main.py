"""The command line as a user types it: help, exit codes, one line for what is wrong, one document for `--json`."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

COMMANDS = (
    *("up", "demo", "serve", "model", "encoder", "ship", "schedule", "evaluate", "dashboard", "verify", "doctor", "config"),
    *("compare", "gate", "retain", "compact"),
)
GROUPS = ("dataset", "experiment", "import", "keys", "release")
"""Commands that have commands."""
RELEASE = tuple(f"release {name}" for name in ("list", "register", "show", "diff", "promote", "rollback"))
KEYS = tuple(f"keys {name}" for name in ("add", "list", "revoke"))
NEEDY = ("evaluate", "compare")
"""They say first what they are to be told."""

LIGHT = {"msgspec", "pydantic_settings", "rich", "tomli_w", "typer"}
"""Of what the project depends on, what any command may load."""
BELOW = {"fastapi", "flask", "httpx", "sklearn", "sqlalchemy", "watchkeeper_dashboards", "watchkeeper_evaluations"}
"""What comes with others, and our own that load them."""
IMPORTED_AS = {"opentelemetry_proto": "opentelemetry", "pyahocorasick": "ahocorasick", "pyspellchecker": "spellchecker"}


def depended_on() -> set[str]:
    """By pyproject.toml, for running; as it is imported."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["model"], *extras["evaluate"], *extras["dashboard"]]
    names = {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in listed} - {"watchkeeper"}
    return {IMPORTED_AS.get(name, name) for name in names}


def type_in(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "watchkeeper", *words],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "120", **(env or {})}, timeout=120,
    )  # fmt: skip


def test_help_lists_every_command() -> None:
    shown = type_in("--help").stdout
    assert [command for command in (*COMMANDS, *GROUPS) if f" {command} " not in shown] == []


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPS, *RELEASE, *KEYS])
def test_each_command_has_help_with_an_example(command: str) -> None:
    shown = type_in(*command.split(), "--help")
    assert shown.returncode == 0
    assert f"Example: watchkeeper {command}" in shown.stdout


def test_help_loads_of_what_we_stand_on_only_what_is_light() -> None:
    """So it is quick on any machine."""
    shown = type_in("--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    names = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines() if line.startswith("import time:")}
    loaded = {name.partition(".")[0] for name in names}
    assert loaded >= LIGHT, "or this looks at nothing"
    others = (depended_on() - LIGHT) | BELOW
    assert [name for name in others if find_spec(name) is None] == [], "imported by another name"
    assert sorted(loaded & others) == []


def test_a_gateway_loads_nothing_heavy() -> None:
    code = """
import sys, watchkeeper.serving.app
print(sorted({"torch", "transformers", "mlflow", "evidently", "detoxify", "dash", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_config_is_one_document_with_every_section(tmp_path: Path) -> None:
    (tmp_path / "watchkeeper.toml").write_text("[gateway]\nport = 8123\n")
    shown = type_in("config", "--json", cwd=tmp_path)
    assert shown.returncode == 0
    document = json.loads(shown.stdout)
    assert document["gateway"]["port"] == 8123
    assert document["mlflow"]["experiment"] == "watchkeeper"


READY = (*(command for command in COMMANDS if command not in NEEDY), "release list", "experiment list", "keys list")


@pytest.mark.parametrize("command", READY)
def test_wrong_settings_are_one_line_and_exit_2(command: str, tmp_path: Path) -> None:
    (tmp_path / "watchkeeper.toml").write_text("[gateway]\nprot = 8123\n")
    shown = type_in(*command.split(), cwd=tmp_path)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert shown.stderr == "watchkeeper: watchkeeper.toml:2: gateway.prot: there is no such setting\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "No such command"),
        (["verify", "--colour"], "No such option"),
        (["evaluate"], "Missing argument"),
        (["evaluate", "astrology", "--last", "1h"], "astrology"),
        (["evaluate", "toxicity", "--last", "soon"], "soon"),
        (["evaluate", "toxicity", "--since", "2026-01-02", "--until", "2026-01-01"], "2026-01-01"),
        (["demo", "--requests", "0"], "--requests"),
        (["release", "rollback"], "--reason"),
        (["release", "rollback", "--reason", " "], "--reason: say why"),
        (["release", "promote", "2", "--override", ""], "--override: say why"),
        (["experiment", "frobnicate"], "No such command"),
        (["experiment", "run", "--dataset", "refunds"], "--release"),
        (["experiment", "run", "--dataset", "refunds", "--release", "1", "--repeats", "0"], "--repeats"),
        (["experiment", "show", "nothing"], "no finished experiment 'nothing'"),
        (["keys", "add"], "--tenant"),
        (["keys", "add", "--tenant", "a b"], "--tenant: a tenant's name"),
        (["keys", "add", "--tenant", "a", "--expires", "soon"], "--expires"),
        (["keys", "add", "--tenant", "a", "--expires", "2020-01-01"], "2020-01-01 is over"),
        (["keys", "add", "--tenant", "a", "--role", "king"], "--role"),
        (["keys", "revoke", "nothing"], "there is no key 'nothing'"),
        (["compare", "watchkeeper@1"], "Missing argument"),
        (["gate", "watchkeeper@1"], "name the candidate too"),
        (["gate", "--policy", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_wrong_use_exits_2_and_says_what(words: list[str], said: str, tmp_path: Path) -> None:
    shown = type_in(*words, cwd=tmp_path)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr


def test_doctor_says_what_is_wrong_and_exits_1(tmp_path: Path, free_port: Callable[[], int]) -> None:
    settings = f'[knowledge]\nfolders = ["nowhere"]\n[gateway]\nport = {free_port()}\n'
    (tmp_path / "watchkeeper.toml").write_text(settings)
    (tmp_path / ".watchkeeper").mkdir()
    (tmp_path / ".watchkeeper" / "release.json").write_text("{broken")
    shown = type_in("doctor", "--json", cwd=tmp_path)
    assert shown.returncode == 1
    findings = {finding["part"]: finding for finding in json.loads(shown.stdout)}
    assert findings["knowledge"]["state"] == "bad"
    assert findings["data folder"]["state"] == "good"
    assert findings["release"]["state"] == "bad"
    assert "release.json: is no release" in findings["release"]["detail"]
    assert findings["gateway"]["state"] == "off"
