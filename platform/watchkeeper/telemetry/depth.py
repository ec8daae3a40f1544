"""How deep a spool is, and how far behind each sink: what `/metrics` and `doctor` tell of it.

Rows, bytes and ages are read off the files themselves, so they are true while no shipper runs; how far each sink is, and
what it complains of, is the shipper's word in `shipper.json`, with the age of that word. Light: the gateway loads this.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.telemetry import room
from watchkeeper.telemetry.segment import SegmentUnreadable, segments

SHIPPER: Final = "shipper.json"

SILENT_S: Final = 30.0
"""A shipper that runs reports each second; one that has said nothing for so long does not run."""


class SinkDepth(msgspec.Struct, frozen=True):
    """`pending`: rows that the sink does not have; `lag_s`: the age of the oldest one; `error`: why it takes nothing;
    `done_in_s`: when it will have caught up, None where that is not known or never."""

    pending: int
    lag_s: float | None = None
    error: str | None = None
    done_in_s: float | None = None


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """`rows`: in files that are still there, delivered or not; `oldest_s`: the age of the oldest of them, by this machine's
    clock, never below 0; `unreadable`: path → why; `said_s`: how old the shipper's word is, None: it never gave one."""

    rows: int
    oldest_s: float | None
    room: room.Room
    unreadable: dict[str, str]
    sinks: dict[str, SinkDepth]
    said_s: float | None


class _Said(msgspec.Struct):
    at: int = 0
    sinks: dict[str, SinkDepth] = {}
    unreadable: dict[str, str] = {}


def depth(data: Path, spool: Path, limit: int, clock: Callable[[], float]) -> Depth:
    """Looks at everything once; a millisecond or so a segment. `clock`: seconds since the epoch. Raises `OSError`."""
    found = segments(spool)
    oldest: list[int] = []
    for segment in found.segments:
        with contextlib.suppress(SegmentUnreadable, FileNotFoundError):
            oldest += [row.received_at for row in segment.rows(segment.first - 1, limit=1)]
    said = _said(data)
    return Depth(
        rows=sum(segment.last - segment.first + 1 for segment in found.segments),
        oldest_s=max(0.0, clock() - min(oldest) / 1e6) if oldest else None,
        room=room.look(spool, limit),
        unreadable=found.unreadable
        | {path: why for path, why in (said.unreadable if said else {}).items() if _there(path)},
        sinks=said.sinks if said else {},
        said_s=max(0.0, clock() - said.at / 1e6) if said else None,
    )


def _there(path: str) -> bool:
    return Path(path).exists()


def _said(data: Path) -> _Said | None:
    try:
        return msgspec.json.decode((data / SHIPPER).read_bytes(), type=_Said)
    except (OSError, msgspec.DecodeError):
        return None
