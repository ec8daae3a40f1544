"""`watchkeeper erase` on the command line: what it refuses, and that it never erases without being told twice."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record

ID = f"{1:032x}"


@pytest.fixture
def typed(tmp_path: Path, watchkeeper: list[str], free_port: Callable[[], int]) -> Callable[..., tuple[int, str, str]]:
    file = tmp_path / "watchkeeper.toml"
    file.write_text(f'data = "{tmp_path / "data"}"\n[mlflow]\nuri = "http://127.0.0.1:{free_port()}"\n')

    def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
        command = [*watchkeeper, "erase", *words, "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, input=stdin, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def test_what_cannot_be_erased_is_one_line(typed: Callable[..., tuple[int, str, str]]) -> None:
    for words, said in (
        ((), "say whose: --user, or --request"),
        (("--user", "ana", "--request", ID), "say whose"),
        (("--request", ID, "--tenant", "t", "--yes"), "--tenant goes with --user"),
        (("--user", "[EMAIL]", "--yes"), "give the ids of the requests"),
        (("--ids", "nowhere.txt", "--yes"), "nowhere.txt: No such file"),
        (("--user", "ana"), "erasing cannot be undone: say --yes"),
    ):
        code, out, err = typed(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err


def test_looking_counts_and_erasing_names_what_it_did_not_reach(
    typed: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path / "data" / "lake"))
    lake.append("interactions", to_arrow([Record(request_id=ID, received_at=1), Record(request_id="2", received_at=1)]))
    code, out, err = typed("--ids", "-", "--dry-run", "--json", stdin=f"tr-{ID}\n\n")
    seen = json.loads(out)
    assert (code, seen["requests"], seen["dry_run"], seen["removed"]) == (1, 1, True, {})
    assert lake.query("SELECT * FROM interactions").num_rows == 2
    code, out, err = typed("--request", ID, "--yes")
    assert (code, out.split()[:2]) == (1, ["erased", "requests"])
    assert "not reached: MLflow does not answer" in err
    assert "run it again" in err
    assert "no older version of the lake can be replayed any more: interactions" in err
    assert lake.query("SELECT request_id FROM interactions").column(0).to_pylist() == ["2"]
