"""Numbers and times as people read them: `1.64 s`, `$0.40`, `12.3k`, `16:59:59`. Times are UTC; None is an en dash."""

import math
from datetime import UTC, datetime
from typing import Final

NONE: Final = "–"


def milliseconds(ms: float | None) -> str:
    """`0.42 ms`, `35 ms`, `1.64 s`, `2 min 5 s`."""
    if ms is None or not math.isfinite(ms):
        return NONE
    if ms < 10:
        return f"{ms:.2g} ms" if ms >= 0.01 else "<0.01 ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.2f} s" if ms < 10_000 else f"{ms / 1_000:.1f} s"
    return f"{int(ms // 60_000)} min {ms % 60_000 / 1_000:.0f} s"


def round_milliseconds(ms: float) -> str:
    """A round number for an axis: `0.1 ms`, `500 ms`, `2 s`."""
    return f"{ms:g} ms" if ms < 1_000 else f"{ms / 1_000:g} s"


def count(n: float) -> str:
    """`230,771`; from ten million on `12.3M`."""
    return f"{n:,.0f}" if n < 10_000_000 else f"{n / 1e6:,.1f}M"


def short_count(n: float) -> str:
    """`950`, `12.3k`, `4.1M`: for places with little room."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}{suffix}"
    return f"{n:.0f}"


def share(part: float | None) -> str:
    """A share in [0, 1] as a percentage: `0.54%`, `9.5%`, `100%`."""
    if part is None or not math.isfinite(part):
        return NONE
    percent = part * 100
    if percent == 0 or percent == 100:
        return f"{percent:.0f}%"
    return f"{percent:.2f}%" if percent < 1 else f"{percent:.1f}%"


def dollars(usd: float | None) -> str:
    """`$0`, `<$0.0001`, `$0.00031`, `$0.40`, `$1,204`."""
    if usd is None or not math.isfinite(usd):
        return NONE
    if usd == 0:
        return "$0"
    if usd >= 100:
        return f"${usd:,.0f}"
    return f"${usd:.2f}" if usd >= 0.1 else f"${usd:.2g}" if usd >= 0.0001 else "<$0.0001"


def score(value: float | None) -> str:
    """A score in [0, 1] with two digits; `<0.01` where they would hide it."""
    if value is None or not math.isfinite(value):
        return NONE
    return "<0.01" if 0 < value < 0.005 else f"{value:.2f}"


def clock(when: datetime) -> str:
    """`16:59:59`."""
    return when.astimezone(UTC).strftime("%H:%M:%S")


def moment(when: datetime) -> str:
    """`10 Jan 2026 16:59:59 UTC`."""
    return when.astimezone(UTC).strftime("%d %b %Y %H:%M:%S UTC").lstrip("0")


def day_and_clock(when: datetime) -> str:
    """`10 Jan 16:59:59`."""
    return when.astimezone(UTC).strftime("%d %b %H:%M:%S").lstrip("0")


def window(start: datetime, end: datetime) -> str:
    """`10 Jan 15:57 to 16:55`; the day again where it is another one."""
    first, last = day_and_clock(start)[:-3], day_and_clock(end)[:-3]
    same_day = start.astimezone(UTC).date() == end.astimezone(UTC).date()
    return f"{first} to {last[-5:] if same_day else last}"


def duration(seconds: float) -> str:
    """`5 minutes`, `1 hour`, `3 days`: how wide a bucket is, how long ago something was."""
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            n = round(seconds / size)
            return f"{n} {name}{'' if n == 1 else 's'}"
    n = round(seconds)
    return f"{n} second{'' if n == 1 else 's'}"
