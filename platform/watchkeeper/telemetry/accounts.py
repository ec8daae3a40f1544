"""What a segment leaves in the books: the ids of what was accepted and of what has a record, by the hour, and its numbers.

A worker numbers its accepts without a gap, and its rows too, whatever kind they are: a number that is not there says that
something is lost which nobody else would miss. Knows nothing of sinks.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from watchkeeper.telemetry.frames import ACCEPT, RECORD
from watchkeeper.telemetry.segment import Segment, reading

HOUR_US: Final = 3_600_000_000
LISTED: Final = 100


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """`accepted`: ids in order, also of accepts that an older segment carried on; `hours`: when each was received, in hours
    since the epoch. `spooled`: ids of its records. `accepts`, `rows`: first and last number of those that are its own,
    where the last is one less than the first while there are none. `gaps`: numbers that are missing between, a line
    each."""

    segment: str
    worker: str
    number: int
    accepted: Sequence[str]
    hours: Sequence[int]
    spooled: Sequence[str]
    accepts: tuple[int, int]
    rows: tuple[int, int]
    gaps: tuple[str, ...] = ()


def account(segment: Segment) -> Account:
    """Raises `SegmentUnreadable` and `FileNotFoundError`, as the segment does."""
    with reading(segment.path) as file:
        heads = list(file.heads())
        before = file.before
    accepts = [head for head in heads if head.kind == ACCEPT]
    rows = [head.sequence for head in heads if head.kind != ACCEPT and head.sequence > before.records]
    own = [head.sequence for head in accepts if head.sequence > before.accepted]
    place = f"{segment.worker}/{segment.path.name}"
    return Account(
        segment=segment.uid,
        worker=segment.worker,
        number=segment.number,
        accepted=[head.name for head in accepts],
        hours=[head.at // HOUR_US for head in accepts],
        spooled=[head.name for head in heads if head.kind == RECORD],
        accepts=(before.accepted + 1, own[-1] if own else before.accepted),
        rows=(before.records + 1, rows[-1] if rows else before.records),
        gaps=(
            *(f"{place}: {what}" for what in _missing("accept", before.accepted, own)),
            *(f"{place}: {what}" for what in _missing("row", before.records, rows)),
        ),
    )


def gaps(accounts: Iterable[Account]) -> list[str]:
    """All gaps, inside segments and between those of a worker; a hundred at most. A worker whose segments are all gone
    begins at 1 again, so each segment must begin at 1 or follow on one that there is or was."""
    workers: dict[str, list[Account]] = {}
    for one in accounts:
        workers.setdefault(one.worker, []).append(one)
    found: list[str] = []
    for worker, own in sorted(workers.items()):
        found += [gap for one in own for gap in one.gaps]
        found += [f"worker {worker}: {what}" for what in _between("accept", [one.accepts for one in own])]
        found += [f"worker {worker}: {what}" for what in _between("row", [one.rows for one in own])]
    return found[:LISTED]


def _between(what: str, spans: Sequence[tuple[int, int]]) -> Iterator[str]:
    lasts = {0, *(last for _, last in spans)}
    for first, _ in sorted(set(spans)):
        if first - 1 not in lasts:
            yield _range(what, max(last for last in lasts if last < first) + 1, first - 1)


def _missing(what: str, before: int, numbers: Sequence[int]) -> Iterator[str]:
    for one, following in pairwise((before, *numbers)):
        if following != one + 1:
            yield _range(what, one + 1, following - 1)


def _range(what: str, first: int, last: int) -> str:
    return f"{what} {first} is missing" if first == last else f"{what}s {first} to {last} are missing"
