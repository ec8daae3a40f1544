"""A hedge: a second upstream is asked when the first is late to begin, and whoever begins first answers.

Only until something has come, so an answer is always of one upstream. A chat completion changes nothing in the world that
we could know of (tools are called by the client, from the answer that it got), so asking twice costs tokens only. The loser
is closed before the winner's first piece goes on: its upstream sees the connection end.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from watchkeeper.serving.wire import Delta, UpstreamFailed

LOOK_AGAIN_S: Final = 0.25
"""How often it is asked when to hedge, while that is not known yet."""

SOON_S: Final = 0.001
"""No timer is worth setting for less."""


class Call(Protocol):
    """One call that has begun to be one: its first delta may be waited for, and it may be closed, once each."""

    async def first(self) -> Delta | None: ...

    async def close(self) -> None: ...


C = TypeVar("C", bound=Call)


async def first_of(
    call: C, late_after_s: Callable[[], float | None], hedge: Callable[[], C | None], clock: Callable[[], float]
) -> tuple[C, Delta | None]:
    """The call that answers, and its first delta. `late_after_s`: after how long to `hedge`; that gives None where there is
    nobody else to ask. Raises `UpstreamFailed`: a refusal of the request at once, else when all have failed."""
    racing = {asyncio.ensure_future(call.first()): call}
    try:
        if await _is_late(next(iter(racing)), late_after_s, clock) and (second := hedge()) is not None:
            racing[asyncio.ensure_future(second.first())] = second
        failure: UpstreamFailed | None = None
        while racing:
            await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in racing if task.done()]:
                done = racing.pop(task)
                try:
                    return done, task.result()
                except UpstreamFailed as error:
                    failure = error
                    if not error.retryable:
                        raise
        assert failure is not None
        raise failure
    finally:
        for task in racing:
            task.cancel()
        await asyncio.gather(*racing, return_exceptions=True)
        for loser in racing.values():
            await loser.close()


async def _is_late(
    task: asyncio.Future[Delta | None], late_after_s: Callable[[], float | None], clock: Callable[[], float]
) -> bool:
    began = clock()
    while not task.done():
        after_s = late_after_s()
        left_s = LOOK_AGAIN_S if after_s is None else after_s - (clock() - began)
        if left_s < SOON_S:
            return True
        await asyncio.wait((task,), timeout=left_s)
    return False
