"""Calibrations of cascades: from which difficulty on the large model is asked, as `watchkeeper calibrate cascade` found it.

They lie in `cascade.json` under the data folder, one for each pair of models, and gateways follow the file. Knows nothing
of how a calibration is made, or of what a difficulty is.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec

from watchkeeper.serving.difficulty import COUNTED, Difficulty
from watchkeeper.settings import Cascade

FILE_NAME: Final = "cascade.json"
UNCALIBRATED: Final = 0.45
UNCALIBRATED_COUNTED: Final = 0.3
"""From these difficulties on the large model is asked where nobody has measured what the small one can."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """`difficulty`: from it on the large model is asked. `small`, `large`: the upstreams for which it holds; `by`: what
    measured the difficulty. `score`: what quality was measured by, over `n` cases in `clusters` sessions; `loss`: the
    most that the mean quality may lose by it. `expected_loss`, `small_share`, `cost_share`: what it would have been on
    those cases (share of the prompts that stay with the small model; cost against all of them on the large one, None
    where neither has a price)."""

    small: str
    large: str
    difficulty: Annotated[float, msgspec.Meta(ge=0, le=1)]
    by: str
    score: str
    loss: float
    n: int
    clusters: int
    expected_loss: float
    small_share: float
    cost_share: float | None
    experiment_id: str
    calibrated_at: datetime

    def holds(self, cascade: Cascade, by: str) -> bool:
        return self.by == by and self.small in cascade.small and self.large in cascade.large


@dataclass(frozen=True, slots=True)
class Decision:
    """What a cascade decided before any call. `threshold`: from which difficulty on the large model is asked; `by`: where
    that comes from: the setting, a calibration, or the default."""

    cascade: Cascade
    difficulty: Difficulty
    threshold: float
    by: str

    @property
    def hard(self) -> bool:
        return self.difficulty.value >= self.threshold


def read(data: Path) -> tuple[Calibration, ...]:
    """What is calibrated; nothing where there is no file, or none that can be read: the default is the safe side."""
    try:
        return msgspec.json.decode((data / FILE_NAME).read_bytes(), type=tuple[Calibration, ...])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return ()


def decide(cascade: Cascade, difficulty: Difficulty, known: Collection[Calibration]) -> Decision:
    """Who answers a prompt of this difficulty first. The lowest of several calibrations that hold counts."""
    if cascade.difficulty is not None:
        return Decision(cascade, difficulty, cascade.difficulty, "setting")
    found = [one.difficulty for one in known if one.holds(cascade, difficulty.by)]
    if found:
        return Decision(cascade, difficulty, min(found), "calibration")
    default = UNCALIBRATED_COUNTED if difficulty.by == COUNTED else UNCALIBRATED
    return Decision(cascade, difficulty, default, "default")
