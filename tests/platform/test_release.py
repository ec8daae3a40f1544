"""Releases: what serves follows `release.json`; a digest seals it; a broken file leaves the last good one."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from watchkeeper.release import (
    BUILTIN,
    FILE_NAME,
    Follower,
    Grounding,
    Parameters,
    Policy,
    Release,
    ReleaseBroken,
    champion,
    file_of,
)


def test_without_a_file_builtin_serves(tmp_path: Path) -> None:
    assert champion(tmp_path) == BUILTIN
    assert BUILTIN.id == "builtin@0"


def test_the_digest_changes_with_anything_that_matters() -> None:
    other = msgspec.structs.replace(BUILTIN, parameters=Parameters(temperature=0.9))
    assert len(BUILTIN.digest) == 64
    assert other.digest != BUILTIN.digest
    assert msgspec.structs.replace(BUILTIN, name="other", version=7).digest == BUILTIN.digest
    assert msgspec.json.decode(msgspec.json.encode(BUILTIN), type=Release).digest == BUILTIN.digest


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def put(file: Path, release: Release) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.encode(release))


def test_a_gateway_follows_the_file_and_keeps_the_last_good_one(tmp_path: Path) -> None:
    clock = Clock()
    releases = Follower(tmp_path, clock)
    assert releases.champion() == BUILTIN
    better = Release(name="assistant", version=2, template="Be brief.")
    put(tmp_path / FILE_NAME, better)
    clock.now = 1.0
    assert releases.champion() == better
    (tmp_path / FILE_NAME).write_text("{broken")
    clock.now = 2.0
    assert releases.champion() == better


def test_a_file_that_is_replaced_in_the_same_tick_is_seen(tmp_path: Path) -> None:
    """Same size, same time: only the inode tells."""
    clock = Clock()
    one, two = (Release(name="assistant", version=number) for number in (1, 2))
    put(tmp_path / FILE_NAME, one)
    releases = Follower(tmp_path, clock)
    status = (tmp_path / FILE_NAME).stat()
    put(tmp_path / "draft", two)
    os.utime(tmp_path / "draft", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "draft", tmp_path / FILE_NAME)
    clock.now = 1.0
    assert releases.champion() == two


def test_a_broken_file_at_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("{broken")
    for start in (lambda: champion(tmp_path), lambda: Follower(tmp_path, Clock())):
        with pytest.raises(ReleaseBroken, match=r"^.*release\.json: is no release: .*; remove it"):
            start()


def test_releases_are_found_by_their_ids(tmp_path: Path) -> None:
    clock = Clock()
    releases = Follower(tmp_path, clock)
    assert (releases.named("assistant@2"), releases.ids()) == (None, ())
    known = {number: Release(name="assistant", version=number, template=f"{number}") for number in (2, 9, 10)}
    for number, release in known.items():
        put(file_of(tmp_path, f"assistant@{number}"), release)
    (tmp_path / "releases" / "notes.json").write_text("{}")
    assert releases.named("assistant@2") == known[2], "what was not there is looked for again"
    clock.now = 1.0
    assert releases.ids() == ("assistant@10", "assistant@9", "assistant@2")
    assert releases.named("assistant@3") is None


def test_a_named_release_follows_its_file(tmp_path: Path) -> None:
    clock = Clock()
    releases = Follower(tmp_path, clock)
    file = file_of(tmp_path, "assistant@2")
    before, after = (Release(name="assistant", version=2, template=text) for text in ("before", "after, and longer"))
    put(file, before)
    assert releases.named("assistant@2") == before
    put(file, after)
    assert releases.named("assistant@2") == before, "a file is looked at once a second"
    clock.now = 1.0
    assert releases.named("assistant@2") == after
    file.write_text("{broken")
    clock.now = 2.0
    assert releases.named("assistant@2") == after
    file.unlink()
    clock.now = 3.0
    assert releases.named("assistant@2") is None


def test_a_broken_named_release_is_none(tmp_path: Path) -> None:
    file = file_of(tmp_path, "assistant@2")
    file.parent.mkdir()
    file.write_text("{broken")
    assert Follower(tmp_path, Clock()).named("assistant@2") is None


@pytest.mark.parametrize(
    "asked", ["../release", "a/../../release@1", "assistant@", "@1", "", "a@1\n", "a" * 400 + "@1", "a\0@1"]
)
def test_what_is_no_id_names_no_file(tmp_path: Path, asked: str) -> None:
    put(tmp_path / FILE_NAME, BUILTIN)
    put(tmp_path / "release@1.json", BUILTIN)
    assert Follower(tmp_path, Clock()).named(asked) is None


def test_a_release_from_before_keeps_its_digest() -> None:
    """These are registered somewhere under these digests: whatever grounding has learnt since, they say nothing of it."""
    assert BUILTIN.digest == "9c533846440acd8cd232fb9e0db3ce3e7ccb2cbacec6fa9d7be999471a112991"
    other = msgspec.structs.replace(
        BUILTIN,
        policies={"toxicity": Policy(block_at=0.5), "bias": Policy()},
        grounding=Grounding(k=5, min_score=0.25),
        model="m",
    )
    assert other.digest == "76155cf2c8e8645cd776bb6cce6ddd87e0d035c1e7488fb3695b61c986311d6b"


@pytest.mark.parametrize(
    "changed",
    [{"cite": True}, {"no_hit": "say"}, {"no_hit_text": "No."}, {"min_support": 0.5}, {"below": "refuse"}, {"note": "?"},
     {"refusal": "!"}],
)  # fmt: skip
def test_what_grounding_has_learnt_is_sealed_where_it_is_said(changed: dict[str, Any]) -> None:
    other = msgspec.structs.replace(BUILTIN, grounding=msgspec.structs.replace(BUILTIN.grounding, **changed))
    assert other.digest != BUILTIN.digest
