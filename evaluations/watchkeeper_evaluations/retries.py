"""When what failed, or has to wait, is looked at again: each name at its own pace. Knows nothing of what is tried."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

AGAIN_S: Final = 20.0
"""What failed, or has to wait, is looked at again after so long; what goes on failing, after twice as long each time,
`DOUBLINGS` times."""

DOUBLINGS: Final = 5


class _Next(msgspec.Struct, frozen=True):
    """`at`: by the clock. `failures`: in a row."""

    at: float
    failures: int = 0


class Retries:
    """All of `names` are due at first. `clock`: monotonic seconds."""

    def __init__(self, names: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = {name: _Next(clock()) for name in names}

    def due(self) -> set[str]:
        now = self._clock()
        return {name for name, following in self._next.items() if now >= following.at}

    def tried(self, name: str, *, again: bool, failed: bool) -> None:
        """A name was just tried. `again`: it is to be looked at once more; `failed`: because it went wrong."""
        before = self._next.pop(name, None)
        if again:
            failures = before.failures + 1 if failed and before is not None else int(failed)
            self._next[name] = _Next(self._clock() + AGAIN_S * 2 ** min(max(failures - 1, 0), DOUBLINGS), failures)
