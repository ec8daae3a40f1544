"""A followed file: read again when it changes, and what it held last where it breaks."""

import os
from pathlib import Path

import pytest

from watchkeeper.following import LOOK_S, Followed


def test_a_file_is_read_again_when_it_changes_and_what_breaks_leaves_the_last_good_one(tmp_path: Path) -> None:
    file, reads = tmp_path / "number", 0

    def read() -> int | None:
        nonlocal reads
        reads += 1
        return int(file.read_text()) if file.exists() else None

    followed = Followed(file, 0.0, read, (ValueError,))
    assert followed.held is None
    file.write_text("1")
    assert followed.look(LOOK_S / 2) is None, "not looked at so soon"
    assert followed.look(LOOK_S) == 1
    assert (followed.look(2 * LOOK_S), reads) == (1, 2), "what has not changed is not read"
    file.write_text("no number")
    assert followed.look(3 * LOOK_S) == 1
    status = file.stat()
    (tmp_path / "draft").write_text("123456789")  # same size and time: only the inode tells
    os.utime(tmp_path / "draft", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "draft", file)
    assert followed.look(4 * LOOK_S) == 123456789
    file.unlink()
    assert followed.look(5 * LOOK_S) is None


def test_a_file_that_is_broken_at_the_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("none")
    with pytest.raises(ValueError, match="invalid literal"):
        Followed(tmp_path / "number", 0.0, lambda: int((tmp_path / "number").read_text()), (ValueError,))
