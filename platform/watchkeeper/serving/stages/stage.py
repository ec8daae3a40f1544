"""What a stage is: the name of its span, what it does, and whether the request ends when it breaks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts


@dataclass(frozen=True)
class Stage:
    """`on_error` `open`: a broken stage is skipped and marked degraded; `closed`: the request is refused."""

    name: str
    run: Callable[[Journey, Parts, Span], Awaitable[None]]
    on_error: Literal["open", "closed"] = "open"
