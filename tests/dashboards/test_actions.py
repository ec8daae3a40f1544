"""Actions are our own commands: run to their end, their result or their one line shown, and no text taken for an option."""

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.settings import Dashboard, Lake, Settings
from watchkeeper_dashboards import actions
from watchkeeper_dashboards.actions import Command, run


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, lake=Lake(storage_options={"secret": "s3cr3t"}))


def test_a_command_gets_the_effective_settings_and_gives_its_document(settings: Settings) -> None:
    outcome = run(settings, Command("config"))
    assert outcome.ok
    assert outcome.code == 0
    assert outcome["data"] == str(settings.data)
    assert outcome["lake"]["storage_options"] == {"secret": "s3cr3t"}
    assert outcome.command == "watchkeeper config"


def test_wrong_use_is_the_commands_own_line(settings: Settings) -> None:
    outcome = run(settings, Command("evaluate", ("nothing",), {"--last": "1h"}))
    assert (outcome.ok, outcome.code, outcome.document) == (False, 2, None)
    assert outcome.error is not None
    assert outcome.error.startswith("there is no job 'nothing'")
    assert outcome.command == "watchkeeper evaluate nothing --last 1h"


def test_an_option_that_does_not_exist_is_one_line_without_its_frame(settings: Settings) -> None:
    outcome = run(settings, Command("config", options={"--colour": "red"}))
    assert outcome.error == "No such option: --colour"


@pytest.mark.parametrize("text", ["--help", "-x", "; touch owned", "$(touch owned)", "a\nb", "\0"])
def test_no_text_is_an_option_or_meets_a_shell(settings: Settings, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(settings.data)
    outcome = run(settings, Command("evaluate", (text,), {"--last": text}))
    assert not outcome.ok
    assert outcome.document is None
    assert not (settings.data / "owned").exists()


def test_the_settings_file_is_ours_alone_and_does_not_stay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    spied = Command.argv

    def argv(self: Command, config: str, data: str) -> list[str]:
        seen[config] = stat.S_IMODE(os.stat(config).st_mode)
        assert "s3cr3t" in Path(config).read_text()
        return spied(self, config, data)

    monkeypatch.setattr(Command, "argv", argv)
    run(settings, Command("config"))
    assert list(seen.values()) == [0o600]
    assert not any(os.path.exists(config) for config in seen)


def test_what_takes_too_long_is_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(Command, "argv", lambda *_: endless)
    outcome = run(settings, Command("gate", ("a", "b")), timeout_s=0.5)
    assert outcome.error == "It took longer than 0 s and was ended"


def test_an_answer_of_no_has_its_document_and_its_reason(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'import sys; print(\'{"verdict": "fail", "reason": "grounded fell"}\'); sys.exit(1)'
    monkeypatch.setattr(Command, "argv", lambda *_: [sys.executable, "-c", said])
    outcome = run(settings, Command("gate", ("a", "b")))
    assert (outcome.code, outcome["verdict"], outcome.error) == (1, "fail", "grounded fell")


def test_what_it_reads_comes_on_stdin(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = "import json, sys; print(json.dumps({'read': sys.stdin.read().split()}))"
    monkeypatch.setattr(Command, "argv", lambda *_: [sys.executable, "-c", echo])
    assert run(settings, Command("dataset add", ("x",), stdin="a\nb\n"))["read"] == ["a", "b"]


def test_an_app_that_others_can_reach_runs_nothing(settings: Settings) -> None:
    reachable = settings.model_copy(update={"dashboard": Dashboard(host="0.0.0.0")})
    outcome = run(reachable, Command("config"))
    assert (outcome.ok, outcome.code) == (False, None)
    assert outcome.error == actions.refusal(reachable)
    assert "no log-in" in str(outcome.error)
