"""The books of the shipper: cursors, ids of retired segments, dead letters; all of them outlive a crash."""

from pathlib import Path

from watchkeeper.telemetry.deliveries import DEAD_LETTERS, DeadLetter, Deliveries, bury, dead_letters
from watchkeeper.telemetry.segment import Segment

SEGMENT = Segment(path=Path("1.sqlite"), worker="w0", number=1, uid="u1", first=1, last=2, sealed=True)


def letter(sequence: int, sink: str = "mlflow") -> DeadLetter:
    return DeadLetter(5, sink, "refused", "u1", sequence, f"{sequence:032x}", "record", b"\x00\xffbody")


def test_a_cursor_is_where_it_was_left(tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    assert books.cursor("mlflow", "u1") == 0
    books.advance("mlflow", "u1", 200)
    books.advance("mlflow", "u1", 400)
    books.close()
    again = Deliveries(tmp_path)
    assert again.cursor("mlflow", "u1") == 400
    assert again.cursor("other", "u1") == again.cursor("mlflow", "u2") == 0
    again.close()


def test_a_retired_segment_leaves_its_ids_once_however_often_it_is_retired(tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    accepted, spooled = ["0a" * 16, "ff" * 16], ["ff" * 16]
    for _ in range(2):
        books.retire(SEGMENT, accepted, spooled, at=1)
    assert list(books.retired()) == [("u1", accepted, spooled)]
    books.close()


def test_looking_makes_no_file(tmp_path: Path) -> None:
    books = Deliveries(tmp_path / "nothing", writable=False)
    assert books.cursor("mlflow", "u1") == 0
    assert list(books.retired()) == []
    books.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_letter_keeps_the_body_and_is_read_once(tmp_path: Path) -> None:
    assert list(dead_letters(tmp_path)) == []
    bury(tmp_path, [letter(1), letter(2)])
    bury(tmp_path, [letter(2), letter(2, "lake")])
    assert list(dead_letters(tmp_path)) == [letter(1), letter(2), letter(2, "lake")]
    assert (tmp_path / DEAD_LETTERS).stat().st_mode & 0o077 == 0, "it holds what people wrote"


def test_a_line_that_a_crash_tore_spoils_no_other(tmp_path: Path) -> None:
    bury(tmp_path, [letter(1)])
    with (tmp_path / DEAD_LETTERS).open("ab") as file:
        file.write(b'{"at": 5, "sink": "ml')
    bury(tmp_path, [letter(2)])
    assert list(dead_letters(tmp_path)) == [letter(1), letter(2)]
