"""What a page is, and what every page works with. Pages know nothing of each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from dash import Dash
from dash.development.base_component import Component

from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings


def utc_now() -> datetime:
    return datetime.now(UTC)


class Links(Protocol):
    """Addresses in MLflow's own pages; None where they are not known (now)."""

    def home(self) -> str: ...
    def trace(self, request_id: str, experiment_name: str | None = None) -> str | None: ...
    def run(self, run_id: str) -> str | None: ...
    def experiment_run(self, run_id: str) -> str | None: ...


Group = Literal["Observe", "Improve"]
"""Where in the navigation a page stands."""


@dataclass(frozen=True)
class Sources:
    """Where pages read: the lake, the settings, MLflow's addresses, and the clock."""

    settings: Settings
    lake: Lake
    links: Links
    now: Callable[[], datetime] = field(default=utc_now)


@dataclass(frozen=True)
class Page:
    """One page. `path` may end in one `<name>`, whose value is handed to `layout`; `icon` None: not in the navigation.

    `layout` makes the frame, without data; `register` adds the callbacks that fill it. `pending`: how many things wait for
    somebody there, a number beside its name in the navigation.
    """

    path: str
    name: str
    layout: Callable[[Sources, str], Component]
    register: Callable[[Dash, Sources], None]
    icon: str | None = None
    group: Group = "Observe"
    pending: Callable[[Sources], int] | None = None

    def matches(self, pathname: str) -> str | None:
        """The value of the path's `<name>` ("" where it has none); None: another page's path."""
        if "<" not in self.path:
            return "" if pathname.rstrip("/") == self.path.rstrip("/") else None
        prefix = self.path.split("<")[0]
        rest = pathname.removeprefix(prefix).rstrip("/")
        return rest if pathname.startswith(prefix) and rest and "/" not in rest else None
