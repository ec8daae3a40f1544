"""Windows of time: half-open UTC intervals, and how people write them on a command line.

Knows nothing of what lies in a window.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, Self

import msgspec

from watchkeeper.settings import seconds

DEFAULT: Final = "1h"
"""The window where none is named: the last hour."""


class Window(msgspec.Struct, frozen=True):
    """[start, end): what happened at `end` is not in it. Any time zone is turned to UTC; none at all is a `ValueError`."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            at: datetime = getattr(self, name)
            if at.tzinfo is None:
                raise ValueError(f"the {name} of a window needs a time zone: {at.isoformat()}")
            msgspec.structs.force_setattr(self, name, at.astimezone(UTC))
        if self.start >= self.end:
            raise ValueError(f"a window must end after it starts: {self}")

    def __str__(self) -> str:
        return f"{written(self.start)}..{written(self.end)}"

    @property
    def previous(self) -> Self:
        """The window of the same length just before. Raises `ValueError` before the year 1."""
        try:
            return type(self)(self.start - (self.end - self.start), self.start)
        except OverflowError:
            raise ValueError(f"nothing comes before {self}") from None

    def overlaps(self, other: "Window") -> bool:
        """Whether some moment is in both."""
        return self.start < other.end and other.start < self.end


def written(at: datetime) -> str:
    """ISO 8601 with Z, as `moment` reads it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """ISO 8601 → UTC; without a zone it is UTC already, a date alone is its midnight. Raises `ValueError`, one line."""
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"a time looks like 2026-04-01T09:30 or 2026-04-01T09:30:00+02:00, not {text!r}") from None


def parse_window(*, last: str | None, since: str | None, until: str | None, now: datetime) -> Window:
    """The window that `--last`, or `--since` with or without `--until`, names; the last hour when nothing is given.

    An end in the future means now: what has not happened yet cannot be judged. Raises `ValueError`, one line.
    """
    if last is not None and (since is not None or until is not None):
        raise ValueError("give either --last, or --since and --until, not both")
    if since is None:
        if until is not None:
            raise ValueError("--until needs --since")
        return _last(last or DEFAULT, now)
    start, end = moment(since), now if until is None else moment(until)
    if start >= now:
        raise ValueError(f"the window starts in the future: {written(start)}, and now is {written(now)}")
    return Window(start, min(end, now))


def parse_reference(text: str, window: Window) -> Window:
    """`previous` (as long as `window`, just before it) or `T..T`. Raises `ValueError`, one line, also where it overlaps."""
    if text.strip() == "previous":
        return window.previous
    start, dots, end = text.partition("..")
    if not dots:
        raise ValueError(f"a reference is `previous` or two times like 2026-04-01T09:00..2026-04-01T10:00, not {text!r}")
    reference = Window(moment(start), moment(end))
    if reference.overlaps(window):
        raise ValueError(f"the reference {reference} overlaps the window {window}: rows would be compared with themselves")
    return reference


def _last(duration: str, now: datetime) -> Window:
    try:
        return Window(now - timedelta(seconds=seconds(duration)), now)
    except OverflowError:
        raise ValueError(f"{duration} is longer than there are dates") from None
