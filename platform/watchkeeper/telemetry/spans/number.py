"""Numbers as others write them: as numbers, or as JSON in a string; never trusted to be in range."""

import math
from typing import Any, Final

MOST: Final = 1 << 40
"""Sums of such numbers stay finite, and exact."""


def real(value: Any) -> float:
    """A finite number that is not negative, at most `MOST`; else 0."""
    if isinstance(value, bool):
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(number, MOST) if math.isfinite(number) and number > 0 else 0.0


def count(value: Any) -> int:
    """A count; else 0."""
    return int(real(value))
