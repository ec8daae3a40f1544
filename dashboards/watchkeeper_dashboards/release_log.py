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
    """One release: its events, newest first, and the gate that judged it as a candidate: against what
    serves, the one that a promotion would ask; else, the newest against anything."""

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


def versions(log: Sequence[Event], gates: Sequence[Compared], serving: str) -> list[Version]:
    """The releases of the log, the highest version first. `gates`: as they count; `serving`: the digest of what serves."""
    by_release: dict[str, list[Event]] = {}
    for event in log:
        by_release.setdefault(event["release"], []).append(event)
    found = [
        Version(release, happened[0]["digest"], tuple(happened), _gate(gates, serving, happened[0]["digest"]))
        for release, happened in by_release.items()
    ]
    return sorted(found, key=_order, reverse=True)


def _gate(gates: Sequence[Compared], serving: str, candidate: str) -> Compared | None:
    found = [gate for gate in gates if gate.candidate_digest == candidate]
    return next((gate for gate in found if gate.base_digest == serving), next(iter(found), None))


def _order(version: Version) -> tuple[str, int]:
    name, _, number = version.release.rpartition("@")
    return name, int(number) if number.isdigit() else -1
