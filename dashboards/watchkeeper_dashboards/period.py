"""The time range that the reader chose: kept in the URL (`?range=6h`), so that a link shows what its sender saw.

Half-open UTC intervals [start, end), start on a bucket's edge. A link to what lies behind a point or a verdict names an
interval of its own (`?since=…&until=…`). Knows nothing of what happened in them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qs, urlencode

from watchkeeper_dashboards import units

RANGES: Final[dict[str, int | None]] = {"1h": 3_600, "6h": 21_600, "24h": 86_400, "all": None}
"""Seconds back from now; None: since the first request that the lake knows."""
DEFAULT: Final = "6h"
NAMES: Final[dict[str, str]] = {
    "1h": "the last hour",
    "6h": "the last 6 hours",
    "24h": "the last 24 hours",
    "all": "all time",
}

BUCKET_S: Final = 300
"""The lake's own bucket; every width here is a multiple of it."""
_WIDTHS: Final = tuple(BUCKET_S * n for n in (1, 2, 3, 6, 12, 24, 48, 72, 144, 288, 2016))
_MOST_BUCKETS: Final = 72


@dataclass(frozen=True)
class Period:
    """One chosen range: what to read, how wide to draw, and the window before it (None for `all`).

    `name` "": an interval that a link named.
    """

    name: str
    start: datetime
    end: datetime
    bucket_s: int

    @property
    def words(self) -> str:
        return NAMES[self.name] if self.name else units.window(self.start, self.end)

    @property
    def prior(self) -> "Period | None":
        """The window of the same length that ends where this one starts."""
        length = RANGES.get(self.name)
        if length is None:
            return None
        return Period(self.name, self.start - timedelta(seconds=length), self.start, self.bucket_s)


def chosen(search: str | None) -> str:
    """The name of the range in a URL's query; the default where there is none, or one we do not know."""
    name = parse_qs((search or "").lstrip("?")).get("range", [DEFAULT])[-1]
    return name if name in RANGES else DEFAULT


def named(search: str | None) -> Period | None:
    """The interval that a URL's `since` and `until` name; None where they are missing, no times, or the wrong way round."""
    query = parse_qs((search or "").lstrip("?"))
    try:
        start, end = (_utc(query[name][-1]) for name in ("since", "until"))
    except (KeyError, ValueError, OverflowError):
        return None
    return Period("", start, end, bucket_width((end - start).total_seconds())) if start < end else None


def between(start: datetime, end: datetime, **more: str | float | None) -> str:
    """A URL's query that names the interval [start, end), and what else is asked for."""
    stamps = {"since": _stamp(start), "until": _stamp(end)}
    return f"?{urlencode(stamps | {name: value for name, value in more.items() if value is not None})}"


def _utc(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)


def _stamp(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def period(name: str, now: datetime, first: datetime | None) -> Period:
    """The interval that `name` means at `now`; `first`: when the lake's first bucket begins, which is where `all` begins.
    Buckets are as narrow as what there is in it allows, so that a young system fills its charts."""
    length = RANGES[name]
    begin = now - timedelta(seconds=length) if length is not None else (first or now - timedelta(hours=1))
    width = bucket_width((now - max(begin, first or begin)).total_seconds())
    start = datetime.fromtimestamp(begin.timestamp() // width * width, UTC)
    return Period(name, start, max(now, start + timedelta(seconds=1)), width)


def bucket_width(seconds: float) -> int:
    """The narrowest of our widths that cuts `seconds` into no more buckets than a chart can show."""
    return next((width for width in _WIDTHS if seconds / width <= _MOST_BUCKETS), _WIDTHS[-1])
