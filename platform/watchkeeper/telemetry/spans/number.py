"""Numbers as others write them: as numbers, or as JSON in a string; never trusted to be in range."""

import math
from typing import Any, Final

MOST: Final = 1 << 40


def real(value: Any) -> float:
    """A finite number that is not negative; else 0."""
    if isinstance(value, bool):
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def count(value: Any) -> int:
    """A count; else 0."""
    return int(min(real(value), MOST))
