"""Of which requests MLflow gets a trace: whatever went wrong, and the same share of the rest whoever asks."""

from collections.abc import Callable
from typing import Any

import pytest

from watchkeeper.record import Record, Verdict
from watchkeeper.settings import Sampling
from watchkeeper.telemetry.sampling import keeps

Make = Callable[..., Record]
NONE = Sampling(share=0.0, slow_ms=5_000)


def verdict(action: Any) -> tuple[Verdict, ...]:
    return (Verdict("pii", "prompt", "EMAIL", action, None, "email", "1"),)


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "upstream_timeout", "status": 504},
        {"error": "disconnected"},
        {"status": 429},
        {"verdicts": verdict("block"), "status": 400},
        {"verdicts": verdict("flag")},
        {"verdicts": verdict("redact")},
        {"verdicts": verdict("unknown")},
        {"total_ms": 5_000.0},
    ],
)
def test_what_went_wrong_or_slowly_is_always_kept(make_record: Make, fields: dict[str, Any]) -> None:
    assert not keeps(NONE, make_record())
    assert keeps(NONE, make_record(**fields))


def test_all_is_kept_unless_told_otherwise(make_record: Make) -> None:
    assert all(keeps(Sampling(), make_record()) for _ in range(100))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_of_the_rest_a_share_is_kept_and_always_the_same(make_record: Make, share: float) -> None:
    records = [make_record(request_id=f"{number:032x}") for number in range(5_000)]  # as ids that begin with their time
    kept = [record for record in records if keeps(Sampling(share=share), record)]
    assert abs(len(kept) / len(records) - share) < 0.03
    assert kept == [record for record in records if keeps(Sampling(share=share), record)]
    assert set(map(id, kept)) <= {id(record) for record in records if keeps(Sampling(share=share + 0.05), record)}
