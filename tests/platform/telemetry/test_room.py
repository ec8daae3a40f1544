"""How much a spool may still take in, by its limit and by its disk."""

from pathlib import Path

import pytest

from watchkeeper.telemetry.room import Room, look, megabytes, reserve

GB = 1_000_000_000


def test_the_room_of_a_folder_is_what_its_files_leave(tmp_path: Path) -> None:
    (tmp_path / "w0").mkdir()
    (tmp_path / "w0" / "1.log").write_bytes(b"x" * 3_000_000)
    (tmp_path / "w1").mkdir()
    (tmp_path / "w1" / "1.log").write_bytes(b"x" * 2_000_000)
    room = look(tmp_path, 100_000_000)
    assert room.used == 5_000_000
    assert room.left == 100_000_000 - 5_000_000 - 6_250_000, "a sixteenth stays for what is under way"
    assert room.lack is None
    assert 0 < room.free <= room.disk


def test_a_folder_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    room = look(tmp_path / "data" / "spool", GB)
    assert (room.used, room.lack) == (0, None)


@pytest.mark.parametrize(
    ("room", "says"),
    [
        (Room(4 * GB - 60_000_000, 4 * GB, 50 * GB, 100 * GB), "gateway.max_spool_bytes"),
        (Room(5 * GB, 4 * GB, 50 * GB, 100 * GB), "holds 5,000.0 MB of the 4,000.0 MB"),
        (Room(0, 4 * GB, 60_000_000, 100 * GB), "its disk has only 60.0 MB of 100,000.0 MB left"),
        (Room(0, 4 * GB, 500_000, 8_000_000), "its disk has only 0.5 MB"),
    ],
)
def test_what_lacks_is_named(room: Room, says: str) -> None:
    assert room.left <= 0
    assert says in (room.lack or "")


def test_the_reserve_is_no_larger_than_it_must_be() -> None:
    assert reserve(4 * GB) == reserve(400 * GB) == 64 << 20
    assert reserve(16_000_000) == 1_000_000


def test_bytes_are_told_in_megabytes() -> None:
    assert megabytes(1_234_567_890) == "1,234.6 MB"
