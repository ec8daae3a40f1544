"""How the MLflow server that `up` starts collects garbage: seldom.

Each trace is some thousand objects to it, and all of a batch live until it is committed, so that Python's collector, which
looks after every 700 new ones, looks at the same living ones again and again: a tenth of the server's time, and what the
processor had in its caches. uvicorn takes the name of a loop's maker, which is the one place where we run in its process.
"""

import asyncio
import gc
from typing import Final

EVERY: Final = 50_000
"""New objects after which it looks. Some tens of megabytes at most wait for it."""


def loop() -> asyncio.AbstractEventLoop:
    """uvicorn's own loop, in a process that collects seldom from now on."""
    import uvloop

    gc.set_threshold(EVERY, *gc.get_threshold()[1:])
    return uvloop.new_event_loop()
