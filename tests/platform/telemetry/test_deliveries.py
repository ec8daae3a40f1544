"""The books of the shipper: cursors, ids of retired segments, of spared and of erased requests; they outlive a crash."""

from array import array
from pathlib import Path

import pytest

from watchkeeper.telemetry.accounts import Account
from watchkeeper.telemetry.deliveries import Deliveries

ACCOUNT = Account(
    segment="u1",
    worker="w0",
    number=1,
    accepted=["0a" * 16, "ff" * 16],
    hours=array("I", [497_222, 497_223]),
    spooled=["ff" * 16],
    accepts=(1, 2),
    rows=(1, 3),
    gaps=("w0/1.log: row 2 is missing",),
)


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
    for _ in range(2):
        books.retire(ACCOUNT, at=1)
    assert list(books.retired()) == [ACCOUNT]
    books.close()


def test_looking_makes_no_file(tmp_path: Path) -> None:
    books = Deliveries(tmp_path / "nothing", writable=False)
    assert books.cursor("mlflow", "u1") == 0
    assert list(books.retired()) == []
    books.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_spared_is_noted_with_the_cursor_or_not_at_all(tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    one, other = "0a" * 16, "ff" * 16
    books.advance("mlflow", "u1", 200, [one])
    with pytest.raises(ValueError, match="hex"):
        books.advance("mlflow", "u1", 400, [other, "no id"])
    books.close()
    again = Deliveries(tmp_path)
    assert (again.cursor("mlflow", "u1"), again.sampled_out()) == (200, {one})
    again.note_sampled_out([one, other])
    assert again.sampled_out() == {one, other}
    assert again.erased() == set()
    again.close()


def test_erased_is_erased_since_the_first_time(tmp_path: Path) -> None:
    books = Deliveries(tmp_path)
    books.note_erased(["0a" * 16], at=5)
    books.note_erased(["0a" * 16, "ff" * 16], at=7)
    books.close()
    looking = Deliveries(tmp_path, writable=False)
    assert looking.erased() == {"0a" * 16, "ff" * 16}
    assert looking.sampled_out() == set()
    looking.close()
