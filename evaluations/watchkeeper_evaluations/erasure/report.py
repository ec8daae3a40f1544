"""What an erasure has done so far: how much went where, and what it could not reach."""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from watchkeeper.lake.lake import LakeUnavailable
from watchkeeper.serving.sessions import SessionsUnavailable
from watchkeeper.telemetry.spans.staging import StagingUnavailable
from watchkeeper.tracking import TrackingUnavailable
from watchkeeper.tracking.deletion import NotOurs
from watchkeeper_evaluations.dataset.dataset import DatasetError


@dataclass
class Report:
    """`removed`: place → how much. `left`: a line for each thing that could not be reached, `elsewhere` for each that is
    not ours to reach. `versions`: table of the lake → the version before which none can be read any more."""

    removed: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def could_not(self, line: str) -> None:
        if line not in self.left:
            self.left.append(line)

    @contextlib.contextmanager
    def reaching(self) -> Iterator[None]:
        """Notes what keeps a store from being reached, and goes on with the next one."""
        try:
            yield
        except NotOurs as whose:
            self.elsewhere.append(str(whose))
        except (TrackingUnavailable, LakeUnavailable, SessionsUnavailable, StagingUnavailable, DatasetError) as away:
            self.could_not(str(away))
        except (sqlite3.Error, OSError) as error:
            self.could_not(f"{type(error).__name__}: {error}")
