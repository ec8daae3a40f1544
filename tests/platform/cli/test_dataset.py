"""`watchkeeper dataset …` as people and pages type it, on a real lake and a real MLflow."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.lake.interactions import microseconds, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Message, Record
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import server_command

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]
MAIL = "jane.roe@example.org"
COMMANDS = ("create", "add", "import", "export", "show", "list", "freeze")


@dataclass
class Place:
    """Twelve requests of the last hours, every third of them not grounded, one replayed; one without text."""

    settings: Settings
    folder: Path

    def __call__(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "watchkeeper", "dataset", words[0], "--config", str(self.folder / "watchkeeper.toml")]
        return subprocess.run(
            [*argv, *words[1:]], input=stdin, capture_output=True, text=True, cwd=self.folder, timeout=120
        )

    def document(self, *words: str, stdin: str = "", code: int = 0) -> Any:
        done = self(*words, "--json", stdin=stdin)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def complaint(self, *words: str, stdin: str = "", code: int = 2) -> str:
        done = self(*words, stdin=stdin)
        assert done.returncode == code, done.stdout
        assert done.stdout == ""
        return done.stderr


@pytest.fixture(scope="module")
def place(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    uri = f"http://127.0.0.1:{module_port()}"
    (folder / "watchkeeper.toml").write_text(f'data = "{folder}/data"\n[mlflow]\nuri = "{uri}"\n')
    settings = Settings(data=folder / "data", mlflow=Mlflow(uri=uri))
    now = datetime.now(UTC)
    records = [
        Record(
            request_id=f"{number:032x}",
            received_at=microseconds(now - timedelta(hours=number + 1)),
            prompt=(Message("user", f"Question {number}?"),) if number != 11 else (),
            prompt_text=f"Question {number}?" if number != 11 else "",
            source="replay" if number == 9 else "gateway",
        )
        for number in range(12)
    ]
    lake = Lake(settings.lake_uri)
    rows = to_arrow(records)
    lake.append("interactions", rows)
    grounded = [number % 3 != 0 for number in range(12)]
    lake.append("scores", score_rows(rows, "grounded", grounded, scorer="s", scorer_version="1", scored_at=now))
    argv, env = server_command(settings, settings.data)
    process = module_processes(argv, ready=f"{uri}/health", env=env)
    yield Place(settings, folder)
    process.stop()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "watchkeeper", "dataset", command, "--help"], capture_output=True, text=True, check=True
    )
    assert f"Example: watchkeeper dataset {command}" in " ".join(shown.stdout.split())


def test_failing_traces_become_a_frozen_dataset(place: Place) -> None:
    made = place.document("create", "weak", "--from-traces", "grounded = false", "--last", "2d", "--freeze")
    assert (made["name"], made["added"], made["cases"], made["frozen"]) == ("weak", 3, 3, True)
    assert (made["matched"], made["skipped"], made["left_out"], made["system_text_dropped"]) == (3, 0, {}, 0)
    shown = place.document("show", "weak")
    assert [case["request_id"] for case in sorted(shown["cases"], key=lambda case: case["messages"][0]["content"])] == [
        f"{number:032x}" for number in (0, 3, 6)
    ]
    assert shown["digest"] == made["digest"]
    [listed] = [each for each in place.document("list") if each["name"] == "weak"]
    assert (listed["cases"], listed["frozen"]) == (3, made["digest"])
    assert "'weak' is frozen" in place.complaint("add", "weak", "--ids", "-", stdin=f"{1:032x}\n")
    assert "already" in place.complaint("create", "weak")


def test_a_selection_of_the_dashboard_goes_in_by_ids_on_stdin(place: Place) -> None:
    ids = "".join(f"{number:032x}\n" for number in (1, 2, 9, 11, 500))
    words = ("add", "--create", "--ids=-", "--json", "--", "picked")
    first = json.loads(place(*words, stdin=ids).stdout)
    assert (first["cases"], first["added"], first["already"], first["skipped"]) == (2, 2, 0, 3)
    assert first["left_out"] == {"replay": 1, "no_text": 1, "not_found": 1}
    again = json.loads(place(*words, stdin=ids).stdout)
    assert (again["cases"], again["added"], again["already"], again["skipped"]) == (2, 0, 2, 3)
    said = place("add", "picked", "--ids", "-", stdin=ids)
    assert "1 requests replayed by an experiment were left out" in said.stderr
    assert "picked" in said.stdout


def test_a_source_without_a_case_makes_nothing_and_ends_with_3(place: Place) -> None:
    for words in (("create", "none"), ("add", "none", "--create")):
        done = place.document(*words, "--from-traces", "text ~ unheard", code=3)
        assert (done["added"], done["matched"]) == (0, 0)
        assert "no case" in done["reason"]
    assert "1 requests without text were left out" in place.complaint("add", "x", "--ids", "-", stdin=f"{11:032x}", code=3)
    assert "there is no dataset 'none'" in place.complaint("show", "none")


def test_out_and_in_again_is_the_same_dataset(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text('{"prompt": "When?", "reference": "Now."}\n{"prompt": "Who?", "tags": {"kind": "x"}}\n')
    made = place.document("import", "first", str(file))
    assert (made["added"], made["with_reference"], made["redacted"]) == (2, 1, {})
    out = tmp_path / "out.jsonl"
    assert place("export", "first", str(out)).returncode == 0
    assert place("export", "first").stdout == out.read_text()
    assert place.document("export", "first")["digest"] == made["digest"]
    assert place.document("import", "second", "-", stdin=out.read_text())["digest"] == made["digest"]
    assert place.document("add", "first", str(out))["already"] == 2
    frozen = place.document("freeze", "first")
    assert (frozen["frozen"], frozen["digest"]) == (True, made["digest"])


def test_an_export_that_cannot_be_written_leaves_the_file_as_it_was(place: Place, tmp_path: Path) -> None:
    lines = json.dumps({"prompt": "When? " * 1000}) + "\n"
    place.document("import", "long", "-", stdin=lines)
    out = tmp_path / "out.jsonl"
    out.write_text("the only copy")
    out.chmod(0o600)
    argv = [sys.executable, "-m", "watchkeeper", "dataset", "export", "long", str(out), "--config",
            str(place.folder / "watchkeeper.toml")]  # fmt: skip
    full = subprocess.run(
        argv, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
    )
    assert (full.returncode, full.stderr) == (2, f"watchkeeper: {out}: cannot be written: File too large\n")
    assert out.read_text() == "the only copy"
    assert list(tmp_path.iterdir()) == [out], "and nothing lies about"
    assert place("export", "long", str(out)).returncode == 0
    assert "When? When?" in out.read_text()
    assert out.stat().st_mode & 0o777 == 0o600, "what only its owner may read stays so"
    assert "cannot be written: Is a directory" in place.complaint("export", "long", str(tmp_path))
    assert "cannot be written: No such file" in place.complaint("export", "long", str(tmp_path / "away" / "out.jsonl"))
    assert place("export", "long", "/dev/null").returncode == 0


def test_what_is_personal_in_a_file_is_nowhere_afterwards(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "personal.jsonl"
    line = {"prompt": f"I am {MAIL}, who else?", "reference": f"Ask {MAIL}.", "session": MAIL, "tags": {"who": MAIL}}
    file.write_text(json.dumps(line) + "\n")
    done = place("import", "personal", str(file))  # the session is a name: it becomes another one, and is not counted
    assert done.returncode == 0
    assert "redacted before it was stored: 3 EMAIL" in done.stderr
    everything = [path for path in place.settings.data.rglob("*") if path.is_file()]
    assert any(path.name.startswith("mlflow.db") for path in everything)
    assert [path for path in everything if b"jane.roe" in path.read_bytes()] == []
    assert "jane.roe" not in done.stdout + done.stderr


def test_a_bad_line_writes_nothing(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"prompt": "fine"}}\n{{"prompt": "{MAIL}", "what": 1}}\n')
    complaint = place.complaint("import", "bad", str(file))
    assert complaint == "watchkeeper: line 2: Object contains unknown field `what`; nothing was written\n"
    assert "there is no dataset 'bad'" in place.complaint("show", "bad")
    file.write_text('{"prompt": "a", "reference": "1"}\n{"prompt": "a", "reference": "2"}\n')
    assert "another reference answer" in place.complaint("import", "bad", str(file))
    assert "there is no dataset 'bad'" in place.complaint("show", "bad")


def test_show_says_1_of_a_frozen_dataset_that_was_changed(place: Place) -> None:
    from watchkeeper.tracking import Tracking
    from watchkeeper.tracking.datasets import Datasets, Entry
    from watchkeeper_evaluations.dataset.dataset import home

    place.document("create", "melted", "--from-traces", "", "--last", "2d", "--freeze")
    datasets = Datasets(Tracking(place.settings.mlflow.uri), home(place.settings))
    found = datasets.find("melted")
    assert found is not None
    datasets.write(found.dataset_id, [Entry(inputs={"messages": [{"role": "user", "content": "smuggled"}]})])
    assert "was changed after it was frozen" in place.complaint("show", "melted", code=1)
    assert "was changed" in place.document("show", "melted", code=1)["reason"]
    assert "was changed" in place.complaint("export", "melted")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "x"), "give a source of cases"),
        (("add", "x", "cases.jsonl", "--ids", "-"), "give one source of cases"),
        (("add", "x", "cases.jsonl", "--last", "1h"), "go with --from-traces"),
        (("add", "x", "missing.jsonl"), "missing.jsonl: cannot be read"),
        (("create", "x", "--ids", "missing.txt"), "missing.txt: cannot be read"),
        (("create", "x", "--from-traces", "support <"), "stands a value"),
        (("create", "x", "--from-traces", "groundd = true"), "scores: grounded"),
        (("create", "x", "--from-traces", "", "--last", "soon"), "soon"),
        (("create", "a b"), "a dataset's name is"),
        (("create", "x", "--ids", "-"), "32 hex digits"),
    ],
)
def test_wrong_use_is_one_line_and_2(place: Place, words: tuple[str, ...], said: str) -> None:
    complaint = place.complaint(*words, stdin="nonsense\n")
    assert said in complaint
    assert complaint.count("\n") == 1
