"""A text that was redacted before is not read again, and the outcome is the same."""

from watchkeeper.serving import remembered
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.remembered import Remembered

MAIL = "write to jane.doe@example.org about jane.doe@example.org"


class Counting:
    """The real redactor, and what it was asked to read."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self._redact = Redactor()

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        self.read.append(text)
        return self._redact(text)


def test_the_same_text_is_read_once_with_the_same_outcome() -> None:
    counting = Counting()
    redact = Remembered(counting)
    for text in (MAIL, "nothing in it", "a lone \ud800 surrogate", ""):
        assert redact(text) == redact(text) == Redactor()(text)
    assert counting.read == [MAIL, "nothing in it", "a lone \ud800 surrogate", ""]


def test_what_was_taken_out_is_kept_nowhere() -> None:
    redact = Remembered(Redactor())
    assert redact(MAIL)[0] == "write to [EMAIL] about [EMAIL]"
    assert b"jane" not in repr(vars(redact)).encode()


def test_memory_is_bounded() -> None:
    counting = Counting()
    redact = Remembered(counting)
    long = "word " * (remembered.CHARACTERS // 5 + 1)
    assert redact(long) == redact(long) == (long, {})
    assert counting.read == [long, long]
    for number in range(remembered.TEXTS + 1):
        redact(f"text {number}")
    redact("text 0")
    assert counting.read.count("text 0") == 2
