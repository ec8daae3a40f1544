"""Files of a knowledge base become text; those that cannot say why, and cost nothing but themselves."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchkeeper.serving.documents import MAX_BYTES, Reader, ReaderBroken
from watchkeeper.serving.passages import Unreadable

PAGE = b"<html><head><title>Leave</title></head><body><p>Annual leave is 28 days.</p></body></html>"


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"caf\xe9", "not UTF-8"), (b"a\0b", "not a text file"), (b"x" * (MAX_BYTES[".md"] + 1), "larger than 2 MB")],
)
def test_what_cannot_be_read_says_why(reader: Reader, tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "x.md"
    file.write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        reader.read(file)


@pytest.mark.parametrize("name", ["folder.md", "folder.pdf"])
def test_what_the_system_refuses_says_why(reader: Reader, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(Unreadable, match="Is a directory"):
        reader.read(tmp_path / name)


def test_a_byte_order_mark_and_other_line_ends_are_read(reader: Reader, tmp_path: Path) -> None:
    file = tmp_path / "x.md"
    file.write_bytes(b"\xef\xbb\xbf# A\r\n\r\nText.\r\n")
    assert reader.read(file) == "# A\n\nText.\n"


def test_pages_are_read_by_one_process_that_ends_when_told(reader: Reader, tmp_path: Path) -> None:
    for name in ("a.html", "b.HTM"):
        (tmp_path / name).write_bytes(PAGE)
    assert reader.read(tmp_path / "a.html") == "# Leave\n\nAnnual leave is 28 days."
    process = reader._process
    assert process is not None
    assert reader.read(tmp_path / "b.HTM") == "# Leave\n\nAnnual leave is 28 days."
    assert reader._process is process
    reader.rest()
    assert process.returncode is not None
    assert reader.read(tmp_path / "a.html")


def test_a_file_that_takes_too_long_is_left_out_and_the_next_is_read(tmp_path: Path) -> None:
    endless = tmp_path / "endless.html"
    os.mkfifo(endless)  # nobody ever writes into it
    (tmp_path / "good.html").write_bytes(PAGE)
    reader = Reader(seconds=1.0)
    with pytest.raises(Unreadable, match="took more than 1 s"):
        reader.read(endless)
    reader = Reader()
    assert reader.read(tmp_path / "good.html")
    reader.close()


def test_a_reader_that_dies_costs_one_file(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "good.html").write_bytes(PAGE)
    assert reader.read(tmp_path / "good.html")
    assert reader._process is not None
    os.mkfifo(tmp_path / "killing.html")
    process = reader._process
    watch = threading.Timer(0.3, process.kill)
    watch.start()
    with pytest.raises(Unreadable, match="broke the reader"):
        reader.read(tmp_path / "killing.html")
    watch.join()
    assert reader.read(tmp_path / "good.html")


def test_where_no_process_starts_the_file_is_not_to_blame(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.html").write_bytes(PAGE)
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    with pytest.raises(ReaderBroken, match="No such file"):
        reader.read(tmp_path / "good.html")


@pytest.mark.parametrize("depth", [10_000, 200_000])
def test_deep_nesting_is_only_text(reader: Reader, tmp_path: Path, depth: int) -> None:
    file = tmp_path / "deep.html"
    file.write_bytes(b"<div>" * depth + b"found" + b"</div>" * depth)
    assert reader.read(file) == "found"
