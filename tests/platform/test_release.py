"""Releases: what serves follows `release.json`; a digest seals it; a broken file leaves the last good one."""

from pathlib import Path

import msgspec
import pytest

from watchkeeper.release import BUILTIN, FILE_NAME, Follower, Parameters, Release, champion


def test_without_a_file_builtin_serves(tmp_path: Path) -> None:
    assert champion(tmp_path) == BUILTIN
    assert BUILTIN.id == "builtin@0"


def test_the_digest_changes_with_anything_that_matters() -> None:
    other = msgspec.structs.replace(BUILTIN, parameters=Parameters(temperature=0.9))
    assert len(BUILTIN.digest) == 64
    assert other.digest != BUILTIN.digest
    assert msgspec.structs.replace(BUILTIN, name="other", version=7).digest == BUILTIN.digest
    assert msgspec.json.decode(msgspec.json.encode(BUILTIN), type=Release).digest == BUILTIN.digest


def test_a_gateway_follows_the_file_and_keeps_the_last_good_one(tmp_path: Path) -> None:
    now = [0.0]
    follow = Follower(tmp_path, clock=lambda: now[0])
    assert follow() == BUILTIN
    better = Release(name="assistant", version=2, template="Be brief.")
    (tmp_path / FILE_NAME).write_bytes(msgspec.json.encode(better))
    now[0] = 1.0
    assert follow() == better
    (tmp_path / FILE_NAME).write_text("{broken")
    now[0] = 2.0
    assert follow() == better


def test_a_broken_file_at_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("{broken")
    with pytest.raises(msgspec.DecodeError):
        champion(tmp_path)
