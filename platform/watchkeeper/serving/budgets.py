"""The allowances of all tenants that have limits, in one file that the workers of a gateway share.

A record of fixed size a tenant, read, changed and written under the file's lock: four system calls, some microseconds, and
every worker sees every other's requests at once, so limits hold exactly. Rejected: SQLite (twice the time, and who finds it
locked sleeps), and leases of a part for each worker (a tenant is refused while another worker sits on what is left).

It outlives restarts and the death of any worker, in mid-request too: what a dead one had reserved stays taken (buckets
fill again; money counts as spent), and its requests under way are forgotten when it has not been heard of for `DEAD_S`. A
power cut may cost what changed in the last second or so. Several machines have a file each.
"""

import fcntl
import math
import os
import struct
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from watchkeeper.serving.allowance import (
    WORKERS,
    Allowance,
    Bucket,
    Denied,
    Reservation,
    Spend,
    bring_up,
    opened,
    reserve,
    standing,
)
from watchkeeper.serving.allowance import settle as settled
from watchkeeper.settings import Tenant

FILE_NAME: Final = "budgets"
MAGIC: Final = b"watchkeeper budgets 1\n"
DEAD_S: Final = 5.0
BEAT_S: Final = 1.0

_BEATS: Final = struct.Struct(f"<{WORKERS}d")
_BEATS_AT: Final = 64
_BEAT: Final = struct.Struct("<d")
_HEAD: Final = 1024
_RECORD: Final = struct.Struct(f"<64s 3d 3d id id {2 * WORKERS}s")
_SIZE: Final = 512
"""Of a record: it lies in one sector, and so is never half written."""


class BudgetsBroken(Exception):
    """The file is none of ours, or cannot be read or written; the message is one line that names it."""


class Exhausted(Exception):
    """A tenant has reached a limit. `standing`: how its allowance stands."""

    def __init__(self, denied: Denied, standing: Reservation) -> None:
        super().__init__(denied.message)
        self.denied = denied
        self.standing = standing


class _Lock:
    """The file's, while it is entered. A class: `contextlib`'s generators cost as much as the rest of it."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class Budgets:
    """For one worker, by its number, on one thread; None: for who only looks. `wall`: seconds since the epoch. Raises
    `BudgetsBroken`."""

    def __init__(
        self, file: Path, tenants: Sequence[Tenant], worker: int | None, wall: Callable[[], float] = time.time
    ) -> None:
        self._file = file
        self._worker = 0 if worker is None else worker % WORKERS
        self._wall = wall
        self._tenants = {tenant.name: tenant for tenant in tenants if tenant.metered}
        self._places: dict[str, int] = {}
        self._changed = False
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            self._locked = _Lock(self._descriptor)
            try:
                with self._locked:
                    self._make_room()
                    if worker is not None:
                        self._forget({self._worker})
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            raise BudgetsBroken(f"{file}: {error.strerror}") from error
        if worker is not None:
            self.beat()

    def reserve(self, tenant: str, tokens: float, usd: float, stay_s: float = 1.0) -> Reservation | None:
        """Takes a request of a tenant's allowance; None: it has no limits. Raises `Exhausted`."""
        limits = self._tenants.get(tenant)
        if limits is None:
            return None
        with self._locked:
            allowance = self._read(limits)
            got = reserve(allowance, limits, self._wall(), tokens, usd, self._worker, stay_s)
            self._write(limits, allowance)
        if isinstance(got, Denied):
            raise Exhausted(got, standing(allowance, limits))
        return got

    def settle(self, held: Reservation, tokens: float, usd: float, *, asked: bool = True) -> None:
        """Ends a reservation by what the request took."""
        limits = self._tenants[held.tenant]
        with self._locked:
            allowance = self._read(limits)
            settled(allowance, limits, self._wall(), held, tokens, usd, self._worker, asked=asked)
            self._write(limits, allowance)

    def allowances(self) -> Iterator[tuple[Tenant, Allowance]]:
        """Every allowance as it stands now."""
        for limits in self._tenants.values():
            with self._locked:
                allowance = self._read(limits)
            bring_up(allowance, limits, self._wall())
            yield limits, allowance

    def beat(self) -> None:
        """Says that this worker lives, and forgets what those had under way that did not say so for `DEAD_S`."""
        now = self._wall()
        with self._locked:
            os.pwrite(self._descriptor, _BEAT.pack(now), _BEATS_AT + self._worker * _BEAT.size)
            beats = _BEATS.unpack(os.pread(self._descriptor, _BEATS.size, _BEATS_AT))
            self._forget({worker for worker, at in enumerate(beats) if at and abs(now - at) > DEAD_S})

    def sync(self) -> None:
        """Puts on the disk what has changed; may take its time, and may run on another thread."""
        if self._changed:
            self._changed = False
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _make_room(self) -> None:
        """Finds the tenants' records, and makes those that are missing."""
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            os.pwrite(self._descriptor, MAGIC.ljust(_HEAD, b"\0"), 0)
        elif os.pread(self._descriptor, len(MAGIC), 0) != MAGIC or (size - _HEAD) % _SIZE:
            raise BudgetsBroken(f"{self._file}: is no file of budgets of this version; move it away, and all begin anew")
        end = max(_HEAD, size)
        for place in range(_HEAD, end, _SIZE):
            name = os.pread(self._descriptor, 64, place).rstrip(b"\0").decode("ascii", "replace")
            self._places.setdefault(name, place)
        for limits in self._tenants.values():
            if limits.name not in self._places:
                os.ftruncate(self._descriptor, end + _SIZE)
                self._places[limits.name] = end
                self._write(limits, opened(limits, self._wall()))
                end += _SIZE

    def _forget(self, workers: set[int]) -> None:
        """The requests of these workers are no longer under way."""
        for place in self._places.values() if workers else ():
            *numbers, counts = _RECORD.unpack(os.pread(self._descriptor, _RECORD.size, place))
            running = array("H", counts)
            for worker in workers:
                running[worker] = 0
            os.pwrite(self._descriptor, _RECORD.pack(*numbers, running.tobytes()), place)
        for worker in workers - {self._worker}:
            os.pwrite(self._descriptor, _BEAT.pack(0.0), _BEATS_AT + worker * _BEAT.size)

    def _read(self, limits: Tenant) -> Allowance:
        body = os.pread(self._descriptor, _RECORD.size, self._places[limits.name])
        fields = _RECORD.unpack(body)
        return Allowance(
            _bucket(fields[1], fields[2], fields[3], limits.requests_per_minute),
            _bucket(fields[4], fields[5], fields[6], limits.tokens_per_minute),
            Spend(fields[7], _sound(fields[8])),
            Spend(fields[9], _sound(fields[10])),
            array("H", fields[11]),
        )

    def _write(self, limits: Tenant, allowance: Allowance) -> None:
        requests, tokens = allowance.requests, allowance.tokens
        body = _RECORD.pack(
            limits.name.encode("ascii"),
            requests.level,
            requests.owed,
            requests.at,
            tokens.level,
            tokens.owed,
            tokens.at,
            allowance.day.period,
            allowance.day.usd,
            allowance.month.period,
            allowance.month.usd,
            allowance.running.tobytes(),
        )
        os.pwrite(self._descriptor, body, self._places[limits.name])
        self._changed = True


def _bucket(level: float, owed: float, at: float, capacity: float | None) -> Bucket:
    """A limit may have been lowered since, and a number may be anything."""
    level = _sound(level)
    return Bucket(level if capacity is None or level < capacity else capacity, _sound(owed), _sound(at))


def _sound(number: float) -> float:
    return number if 0 < number < math.inf else 0.0
