"""The ledger by the hour in which requests were accepted. Knows nothing of where the ids come from."""

from collections import Counter
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from typing import Final

import msgspec

HOUR_S: Final = 3600


class Hour(msgspec.Struct, frozen=True, kw_only=True):
    """One hour's requests (`hour`: its start, UTC), counted as in the ledger. `answered`: by the lake, with neither an
    error nor a refusal. None: who holds them could not be asked."""

    hour: str
    accepted: int
    answered: int | None
    spooled: int
    mlflow: int | None
    lake: int | None
    scored: int | None
    dead_lettered: int
    sampled_out: int
    erased: int


def by_hour(hours: Mapping[str, int], sides: Mapping[str, Set[str] | None]) -> list[Hour]:
    """`hours`: when each request was accepted, in hours since the epoch. `sides`: ids for each count of an `Hour`."""
    counts: dict[str, Counter[int] | None] = {"accepted": Counter(hours.values())}
    for side, ids in sides.items():
        counts[side] = None if ids is None else Counter(hours[name] for name in ids if name in hours)
    return [
        msgspec.convert(
            {"hour": datetime.fromtimestamp(hour * HOUR_S, UTC).strftime("%Y-%m-%dT%H:00Z")}
            | {side: None if count is None else count[hour] for side, count in counts.items()},
            Hour,
        )
        for hour in sorted(set(hours.values()))
    ]
