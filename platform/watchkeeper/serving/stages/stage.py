"""What a stage is: the name of its span, what it does, and whether the request ends when it breaks."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from watchkeeper.record import NAME
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts


@dataclass(frozen=True)
class Stage:
    """`on_error` `open`: a broken stage is skipped and marked degraded; `closed`: the request is refused."""

    name: str
    run: Callable[[Journey, Parts, Span], Awaitable[None]]
    on_error: Literal["open", "closed"] = "open"

    def __post_init__(self) -> None:
        if not re.match(NAME, self.name):
            raise ValueError(f"a stage's name is a word such as guard_in, not {self.name!r}")
