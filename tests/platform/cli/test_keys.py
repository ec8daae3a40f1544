"""`watchkeeper keys` as an operator types it: a key is shown once, lists show none, revoking is for good."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from watchkeeper.serving.keys import Keys


def type_in(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "watchkeeper", "keys", *words], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def document(cwd: Path, *words: str) -> Any:
    done = type_in(cwd, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_key_is_shown_once_listed_without_itself_and_ended(tmp_path: Path) -> None:
    assert document(tmp_path, "list") == {"file": ".watchkeeper/keys.json", "required": False, "keys": []}
    made = document(tmp_path, "add", "--tenant", "acme", "--expires", "90d", "--note", "the shop")
    file = tmp_path / made["file"]
    assert Keys(file).caller(f"Bearer {made['key']}".encode()).tenant == "acme"
    (listed,) = document(tmp_path, "list")["keys"]
    assert (listed["id"], listed["state"], listed["note"]) == (made["id"], "good", "the shop")
    assert listed["expires_at"] > listed["created_at"]
    assert made["key"][16:] not in type_in(tmp_path, "list").stdout
    assert document(tmp_path, "revoke", made["id"])["state"] == "revoked"
    assert document(tmp_path, "list")["keys"][0]["state"] == "revoked"


def test_for_a_shell_the_key_alone_is_on_stdout(tmp_path: Path) -> None:
    done = type_in(tmp_path, "add", "--tenant", "acme")
    assert done.returncode == 0
    assert Keys(tmp_path / ".watchkeeper" / "keys.json").caller(f"Bearer {done.stdout.strip()}".encode()).tenant == "acme"
    assert "acme has no limits" in done.stderr


def test_a_broken_file_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / ".watchkeeper").mkdir()
    (tmp_path / ".watchkeeper" / "keys.json").write_text("{")
    for words in (["list"], ["add", "--tenant", "a"], ["revoke", "b"]):
        done = type_in(tmp_path, *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "keys.json: is no file of API keys" in done.stderr
