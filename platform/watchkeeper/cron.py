"""Cron's five fields, read and checked: minute, hour, day of month, month, day of week; times are UTC.

A field is `*`, a number or a name (`mon`, `jan`), a range, any of those with a step (`*/15`), or a list of them. Sunday
is 0 and 7, as everywhere but in APScheduler. Knows nothing of when it is now.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART: Final = re.compile(r"(\*|(?P<first>\w+)(-(?P<last>\w+))?)(/(?P<step>\d+))?")


class Cron(NamedTuple):
    """Each field as the sorted values it names."""

    minute: tuple[int, ...]
    hour: tuple[int, ...]
    day: tuple[int, ...]
    month: tuple[int, ...]
    weekday: tuple[int, ...]


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: Sequence[str] = ()


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("day of week", 0, 7, DAYS),
)


def parse(text: str) -> Cron:
    """Raises `ValueError`, one line.

    Days of the month and of the week at once are refused: cron takes one *or* the other then, which few expect.
    """
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"cron has five fields (minute hour day month weekday), like '5 * * * *', not {text!r}")
    minute, hour, day, month, weekday = (_values(part, field) for part, field in zip(parts, _FIELDS, strict=True))
    days = tuple(sorted({number % 7 for number in weekday}))
    if len(day) < 31 and len(days) < 7:
        raise ValueError(f"cron names days of the month or of the week, not both: {text!r}")
    return Cron(minute, hour, day, month, days)


def _values(text: str, field: _Field) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.lower().split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"cron's {field.name} cannot be {text!r}")
        first, last, step = match["first"], match["last"], int(match["step"] or 1)
        low = field.low if first is None else _number(first, field)
        # A start with a step, `5/15`, runs to the end.
        high = _number(last, field) if last else field.high if first is None or match["step"] else low
        if low > high or step == 0:
            raise ValueError(f"cron's {field.name} cannot be {text!r}")
        found.update(range(low, high + 1, step))
    return tuple(sorted(found))


def _number(text: str, field: _Field) -> int:
    if text in field.names:
        return field.names.index(text) + field.low
    if text.isdecimal() and field.low <= int(text) <= field.high:
        return int(text)
    raise ValueError(f"cron's {field.name} goes from {field.low} to {field.high}, not {text!r}")
