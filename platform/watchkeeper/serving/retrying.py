"""How many calls there may be beyond the first of each request, and how long to wait before one.

Retries and hedges share one budget: where much fails they must not make it worse.
"""

import math
import random
from collections.abc import Callable
from typing import Final

REMEMBERED_S: Final = 10.0
FIRST_WAIT_S: Final = 0.025
LONGEST_WAIT_S: Final = 1.0


class RetryBudget:
    """At most `share` of the requests and `per_second` more. `clock`: seconds. Of one gateway worker.

    Requests and calls beyond the first are both counted with a weight that fades over `REMEMBERED_S`, so a burst may use
    what the last ten seconds left. In any time t from the start, calls beyond the first are at most
    `share` x requests + `per_second` x (t + REMEMBERED_S).
    """

    def __init__(self, share: float, per_second: float, clock: Callable[[], float]) -> None:
        self._share = share
        self._floor = per_second * REMEMBERED_S
        self._clock = clock
        self._at = clock()
        self._requests = 0.0
        self._spent = 0.0

    def request(self) -> None:
        """Counts a request."""
        self._fade()
        self._requests += 1

    @property
    def left(self) -> float:
        """How many there may be now."""
        self._fade()
        return max(0.0, self._floor + self._share * self._requests - self._spent)

    def take(self) -> bool:
        """Takes one, if there is one."""
        if self.left < 1:
            return False
        self._spent += 1
        return True

    def _fade(self) -> None:
        now = self._clock()
        if now > self._at:
            kept = math.exp((self._at - now) / REMEMBERED_S)
            self._requests *= kept
            self._spent *= kept
            self._at = now


def wait_s(retry: int, rng: random.Random) -> float:
    """How long to wait before the retry of that number (from 1): anything up to a bound that doubles ("full jitter"), so
    that what failed together does not come back together."""
    return rng.random() * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (retry - 1))
