"""Dead letters: each kept once and whole, counted without reading them, and gone without a trace when they are removed."""

from collections.abc import Callable
from pathlib import Path

from watchkeeper.telemetry.dead_letters import DEAD_LETTERS, DeadLetter, DeadLetters

PLANTED = b"what-somebody-wrote"


def letter(sequence: int, sink: str = "mlflow", kind: str = "record", body: bytes = b"\x00\xffbody") -> DeadLetter:
    return DeadLetter(5, sink, "refused", "u1", sequence, f"{sequence:032x}", kind, body)


def kept(store: DeadLetters) -> list[tuple[str, int, bytes]]:
    return [(one.sink, one.sequence, one.body) for one in store]


def test_a_letter_keeps_the_body_is_kept_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path)
    assert (list(store), store.count()) == ([], 0)
    store.bury([letter(1), letter(2)])
    store.bury([letter(2), letter(2, "lake")])
    store.bury([])
    store.close()
    again = DeadLetters(tmp_path)
    body = b"\x00\xffbody"
    assert kept(again) == [("mlflow", 1, body), ("mlflow", 2, body), ("lake", 2, body)]
    assert [one.number for one in again] == sorted({one.number for one in again})
    assert again.count() == 2, "of the spool's rows"
    assert (tmp_path / DEAD_LETTERS).stat().st_mode & 0o077 == 0, "it holds what people wrote"
    again.close()


def test_looking_makes_no_file(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path / "nothing", writable=False)
    assert (list(store), store.count(), store.records()) == ([], 0, {})
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_feedback_that_was_refused_says_nothing_of_its_request(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path)
    store.bury([letter(1), letter(2, "lake"), letter(3, kind="feedback")])
    assert store.records() == {"mlflow": {f"{1:032x}"}, "lake": {f"{2:032x}"}}
    store.close()


def test_what_someone_else_buries_is_counted_and_counting_costs_nothing(
    tmp_path: Path, bounded: Callable[..., None]
) -> None:
    """A hundred counts while nothing changes, beside one that counts."""
    store = DeadLetters(tmp_path)
    store.bury([letter(number, body=b"x" * 2000) for number in range(20_000)])
    assert store.count() == 20_000

    def first() -> None:
        opened = DeadLetters(tmp_path)
        assert opened.count() == 20_000
        opened.close()

    bounded(lambda: [store.count() for _ in range(100)], first, times=1)
    assert store.count() == 20_000
    other = DeadLetters(tmp_path)
    other.bury([letter(30_000)])
    other.close()
    assert store.count() == 20_001
    store.close()


def test_removed_letters_leave_no_byte_behind(tmp_path: Path) -> None:
    store = DeadLetters(tmp_path)
    names = [f"{number:032x}" for number in range(1, 1200)]
    store.bury([letter(number, body=PLANTED * 100) for number in range(1, 1200)])
    store.bury([letter(1, kind="feedback", sink="lake", body=PLANTED), letter(5000)])
    assert PLANTED in (tmp_path / DEAD_LETTERS).read_bytes()
    assert store.remove(names) == 1200
    assert store.remove(names) == 0
    assert [one.sequence for one in store] == [5000]
    for path in tmp_path.iterdir():
        assert PLANTED not in path.read_bytes(), path
    store.bury([letter(1)])
    assert [one.number for one in store][-1] > 1200, "a number is never given twice"
    store.close()
