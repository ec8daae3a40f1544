"""What a stage is: a name from the record's tuple, what it does, and whether the request ends when it breaks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from watchkeeper.record import StageName
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts


@dataclass(frozen=True)
class Stage:
    """`on_error` `open`: a broken stage is skipped and marked degraded; `closed`: the request is refused."""

    name: StageName
    run: Callable[[Journey, Parts, Span], Awaitable[None]]
    on_error: Literal["open", "closed"] = "open"
