"""Where the demo plays: on servers and data of its own, whatever the settings of the place say."""

import json
from pathlib import Path

import pytest

from watchkeeper.cli.demo.releases import FIRST
from watchkeeper.cli.demo.setting import prepare
from watchkeeper.release import champion
from watchkeeper.settings import Alerts, Mlflow, Settings, load


def test_it_touches_nothing_that_is_somebodys(tmp_path: Path) -> None:
    """It promotes a release and fails on purpose: neither is for the MLflow or the webhook of a service that runs."""
    theirs = Settings(
        data=tmp_path,
        mlflow=Mlflow(uri="https://mlflow.example", experiment="theirs", prompt="theirs", start=False),
        alerts=Alerts(webhook="https://pager.example/hook"),
    )
    ours = prepare(theirs)
    assert ours.mlflow.start
    assert ours.mlflow.uri.startswith("http://127.0.0.1:")
    assert (ours.mlflow.experiment, ours.mlflow.prompt) == ("watchkeeper", FIRST.name)
    assert ours.alerts.webhook is None
    assert ours.data.parent == tmp_path


def test_the_environment_does_not_win_over_what_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_MLFLOW__PROMPT", "theirs")
    monkeypatch.setenv("WATCHKEEPER_ALERTS__WEBHOOK", "https://pager.example/hook")
    ours = prepare(load(data=tmp_path))
    assert load(ours.data / "watchkeeper.toml") == ours
    assert ours.mlflow.prompt == FIRST.name


def test_what_it_wrote_is_what_its_processes_read(tmp_path: Path) -> None:
    ours = prepare(Settings(data=tmp_path))
    read = load(ours.data / "watchkeeper.toml")
    assert read == ours
    assert read.objectives.refusal is None
    assert champion(ours.data) == FIRST
    assert json.loads((ours.data / "release.json").read_text())["name"] == "watchkeeper"
