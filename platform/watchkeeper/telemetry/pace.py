"""The pace of a sink: how fast it takes rows, how fast they come, and so when it will have caught up. Knows no sink."""

from collections import deque
from typing import Final

SPAN_S: Final = 60.0
"""What is older says nothing of now: a server may have come back since."""

LEAST_S: Final = 3.0
"""Less than this is one batch more or less."""


class Pace:
    """Looks at two counts from time to time. `at`: seconds, on any clock that does not jump."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, int]] = deque()

    def look(self, at: float, delivered: int, pending: int) -> None:
        """Notes how many rows were delivered in all, and how many wait."""
        if self._looks and at < self._looks[-1][0]:
            self._looks.clear()
        self._looks.append((at, delivered, pending))
        while at - self._looks[0][0] > SPAN_S:
            self._looks.popleft()

    @property
    def per_s(self) -> float | None:
        """Rows delivered a second, lately; None: not known yet."""
        if (span := self._span()) < LEAST_S:
            return None
        return (self._looks[-1][1] - self._looks[0][1]) / span

    @property
    def done_in_s(self) -> float | None:
        """When nothing waits any more, if everything goes on as lately; 0: nothing does. None: not known, or never."""
        if not self._looks or self._looks[-1][2] == 0:
            return 0.0 if self._looks else None
        span = self._span()
        fewer = self._looks[0][2] - self._looks[-1][2]
        return self._looks[-1][2] * span / fewer if span >= LEAST_S and fewer > 0 else None

    def _span(self) -> float:
        return self._looks[-1][0] - self._looks[0][0] if self._looks else 0.0
