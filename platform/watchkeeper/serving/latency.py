"""How long an answer takes to begin, or to come whole where it does not come as a stream: of one upstream, and of all.

Of one: a peak EWMA. What is slower than the estimate counts at once, what is faster bit by bit, and an estimate that
nothing confirms fades (Finagle's, after which a slow upstream is tried again). Of all: a quantile of what clients got
lately. Both know nothing of how much was asked for.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final

FADES_S: Final = 20.0
WINDOW: Final = 256
ENOUGH: Final = 20
"""Fewer observations have no 95th percentile worth acting on."""


class Latency:
    """Of one upstream and one kind of answer. Seconds throughout; `now` is the caller's clock."""

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        self._value: float | None = None
        self._at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """An answer, or its first token, came after so long."""
        if self._value is None or seconds >= self._value:
            self._value = seconds
        else:
            old = math.exp((self._at - now) / FADES_S)
            self._value = self._value * old + seconds * (1 - old)
        self._at = now

    def at_least(self, seconds: float, now: float, best: float | None) -> None:
        """A call was given up after so long: nobody knows how long it would have taken, but not less. Where that is more
        than what the estimate has faded to, the estimate stands again as it was."""
        faded = self.estimate(now, best)
        if self._value is None or faded is None or seconds > faded:
            self._value = max(self._value or 0.0, seconds)
            self._at = now

    def estimate(self, now: float, best: float | None) -> float | None:
        """The estimate, faded towards `best`, the estimate of the best of all. None: nothing is known yet."""
        if self._value is None:
            return None
        if best is None or self._value <= best:
            return self._value
        return best + (self._value - best) * math.exp((self._at - now) / FADES_S)

    @property
    def latest(self) -> float | None:
        """The estimate when it was last confirmed."""
        return self._value


class Recent:
    """The last `WINDOW` observations."""

    __slots__ = ("_all", "_sorted")

    def __init__(self) -> None:
        self._all: deque[float] = deque()
        self._sorted: list[float] = []

    def observe(self, seconds: float) -> None:
        self._all.append(seconds)
        insort(self._sorted, seconds)
        if len(self._all) > WINDOW:
            del self._sorted[bisect_left(self._sorted, self._all.popleft())]

    def quantile(self, q: float) -> float | None:
        """None while there are few."""
        if len(self._sorted) < ENOUGH:
            return None
        return self._sorted[min(len(self._sorted) - 1, int(q * len(self._sorted)))]
