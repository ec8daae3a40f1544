"""What the lake's event log says of the releases: which there are, who put them into service when and why, and their gates.

The file in the data folder says what serves (gateways follow it); the log says since when and by whom. Knows nothing of
MLflow, where releases are kept: one that was made there by hand and never promoted is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from watchkeeper.lake.experiments import Compared
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.releases import release_events

Event = dict[str, Any]

SERVING: Final = ("promoted", "rolled_back")
"""Events after which a release serves."""


@dataclass(frozen=True)
class Version:
    """One release: its events, newest first, and the newest gate that judged it as a candidate."""

    release: str
    digest: str
    events: tuple[Event, ...]
    gate: Compared | None

    @property
    def registered(self) -> Event | None:
        return next((event for event in self.events if event["event"] == "registered"), None)

    @property
    def put_into_service(self) -> Event | None:
        """The newest time that it was promoted or rolled back to."""
        return next((event for event in self.events if event["event"] in SERVING), None)


def events(lake: Lake) -> list[Event]:
    """Every event, newest first."""
    rows: list[Event] = release_events(lake).to_pylist()
    return rows


def versions(log: Sequence[Event], compared: Sequence[Compared]) -> list[Version]:
    """The releases of the log, the highest version first. `compared`: newest first."""
    by_release: dict[str, list[Event]] = {}
    for event in log:
        by_release.setdefault(event["release"], []).append(event)
    found = [
        Version(
            release, happened[0]["digest"], tuple(happened),
            next((one for one in compared if one.verdict and one.candidate_digest == happened[0]["digest"]), None),
        )
        for release, happened in by_release.items()
    ]  # fmt: skip
    return sorted(found, key=_order, reverse=True)


def _order(version: Version) -> tuple[str, int]:
    name, _, number = version.release.rpartition("@")
    return name, int(number) if number.isdigit() else -1
