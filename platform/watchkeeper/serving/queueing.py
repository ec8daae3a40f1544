"""Who is served next when there is more than can be served at once, and who is sent away.

Start-time fair queueing (Goyal, Vin and Cheng 1996) over flows, a flow being what one tenant asks at one priority: waiting
requests have tags, the lowest is next, and each request of a flow moves the flow's next tag on by 2^-priority. So a tenant
that floods waits behind its own requests and not others behind it, a priority more is twice the share, and nobody
starves: only finitely many can come before any tag. A full queue sends away the highest tag, which is the flood's last.

How long anyone waits is bounded as CoDel has it for servers (Maurer, "Fail at Scale", 2015): a queue that empties now and
then is a burst, which may take `limit_s`; one that has not been empty for that long is standing, and then `target_s` is the
most. Who is served was not kept waiting for nothing, and who is not learns it soon.
"""

import asyncio
import bisect
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final

LONGEST_RETRY_S: Final = 60
SMOOTHING: Final = 0.1


class Overloaded(Exception):
    """Nobody can be served now. `reason`: queue_full or queue_wait. `retry_after`: seconds until the line, as it is and
    goes, would be gone."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(slots=True, eq=False)
class Waiter:
    """One who waits since `arrived` (seconds). `place`: whatever its owner calls it by."""

    tenant: Hashable
    priority: int
    arrived: float
    place: Any = None
    order: tuple[float, int, int] = field(default=(0.0, 0, 0))
    """Its tag, then the higher priority, then who came first."""

    @property
    def flow(self) -> tuple[Hashable, int]:
        return self.tenant, self.priority


class Line:
    """The waiting, without any clock: `now` is seconds, and never less than before."""

    def __init__(self, most: int, *, limit_s: float, target_s: float) -> None:
        self._most = most
        self._limit_s = limit_s
        self._target_s = min(target_s, limit_s)
        self._ordered: list[Waiter] = []
        self._by_age: dict[int, Waiter] = {}
        self._number = 0
        self._tag = 0.0
        self._next_tag: dict[Hashable, float] = {}
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._ordered)

    def arrive(self, waiter: Waiter, now: float) -> Waiter | None:
        """Takes someone in; returns who has to go for it, which may be the newcomer."""
        if not self._ordered:
            self._since, self._tag = now, 0.0
            self._next_tag.clear()
        self._number += 1
        tag = max(self._tag, self._next_tag.get(waiter.flow, 0.0))
        waiter.order = (tag, -waiter.priority, self._number)
        gone: Waiter | None = None
        if len(self._ordered) >= self._most:
            gone = self._ordered[-1] if self._ordered else waiter
            if gone.order < waiter.order:
                gone = waiter
            if gone is waiter:
                return gone
            self._take(len(self._ordered) - 1)
            self._next_tag[gone.flow] = gone.order[0]
        self._next_tag[waiter.flow] = tag + 2.0**-waiter.priority
        bisect.insort(self._ordered, waiter, key=_order)
        self._by_age[self._number] = waiter
        return gone

    def next(self) -> Waiter | None:
        """Whose turn it is; it has left the line."""
        if not self._ordered:
            return None
        waiter = self._take(0)
        self._tag = waiter.order[0]
        return waiter

    def late(self, now: float) -> list[Waiter]:
        """Those who have waited as long as anyone may; they have left the line."""
        bound = self._bound(now)
        late: list[Waiter] = []
        while self._by_age and now >= self._oldest.arrived + bound:
            late.append(self._oldest)
            self.remove(late[-1])
        return late

    def remove(self, waiter: Waiter) -> None:
        """Someone leaves by himself."""
        at = bisect.bisect_left(self._ordered, waiter.order, key=_order)
        if at < len(self._ordered) and self._ordered[at] is waiter:
            self._take(at)

    def due(self, now: float) -> float | None:
        """When somebody will have waited too long, unless something happens before; None: nobody waits."""
        if not self._by_age:
            return None
        standing = self._standing(now)
        # Not standing: it will be then, at the latest, and nobody has waited for longer than there was anybody.
        return self._oldest.arrived + self._target_s if standing else self._since + self._limit_s

    @property
    def _oldest(self) -> Waiter:
        return self._by_age[next(iter(self._by_age))]

    def _bound(self, now: float) -> float:
        return self._target_s if self._standing(now) else self._limit_s

    def _standing(self, now: float) -> bool:
        # Summed as in `due`: a difference may be rounded to less than the limit at the very time that is due.
        return now >= self._since + self._limit_s

    def _take(self, at: int) -> Waiter:
        waiter = self._ordered.pop(at)
        del self._by_age[waiter.order[2]]
        return waiter


def _order(waiter: Waiter) -> tuple[float, int, int]:
    return waiter.order


class Queue:
    """Lets `slots` requests be served at a time, and `most` wait. On one asyncio loop; `clock`: monotonic seconds."""

    def __init__(self, slots: int, most: int, *, limit_s: float, target_s: float, clock: Callable[[], float]) -> None:
        self.running = 0
        self._slots = slots
        self._line = Line(most, limit_s=limit_s, target_s=target_s)
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._left_at: float | None = None
        self._gap = 0.0

    @property
    def waiting(self) -> int:
        return len(self._line)

    async def enter(self, tenant: str, priority: int) -> float:
        """Waits for a turn; how long that took, in seconds. Who has entered must `leave`. Raises `Overloaded`; whoever is
        cancelled has left the line."""
        if self.running < self._slots and not self._line:
            self.running += 1
            return 0.0
        loop, now = asyncio.get_running_loop(), self._clock()
        self._refuse(self._line.late(now), "queue_wait")
        waiter = Waiter(tenant, priority, now, loop.create_future())
        gone = self._line.arrive(waiter, now)
        if gone is not None:
            self._refuse([gone], "queue_full")
        self._watch()
        try:
            await waiter.place
        except asyncio.CancelledError:
            place: asyncio.Future[None] = waiter.place
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # its turn came in the moment in which it went
            else:
                self._line.remove(waiter)
            raise
        return self._clock() - now

    def leave(self) -> None:
        """Makes room for the next."""
        now = self._clock()
        self.running -= 1
        if self._line and self._left_at is not None:
            gap = now - self._left_at
            self._gap += SMOOTHING * (gap - self._gap) if self._gap else gap
        self._left_at = now
        self._refuse(self._line.late(now), "queue_wait")
        while self.running < self._slots:
            waiter = self._line.next()
            if waiter is None:
                return
            if not waiter.place.done():
                self.running += 1
                waiter.place.set_result(None)

    def _refuse(self, waiters: list[Waiter], reason: str) -> None:
        for waiter in waiters:
            if not waiter.place.done():
                waiter.place.set_exception(Overloaded(reason, self._retry_after()))

    def _retry_after(self) -> int:
        return max(1, min(LONGEST_RETRY_S, math.ceil(self._gap * (len(self._line) + 1))))

    def _watch(self) -> None:
        """Sees to it that nobody waits too long though nobody leaves."""
        now = self._clock()
        due = self._line.due(now)
        if due is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._look)

    def _look(self) -> None:
        self._timer = None
        self._refuse(self._line.late(self._clock()), "queue_wait")
        self._watch()
