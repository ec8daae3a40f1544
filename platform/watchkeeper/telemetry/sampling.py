"""Tail sampling: of which requests MLflow gets a trace, once it is known how they went. The lake gets all.

Whoever errs, is not waved through by every guard, or is slow is kept; of the rest a share, chosen by the request's id: the
same after a restart, and whoever asks.
"""

import hashlib
from typing import Final

from watchkeeper.record import Record
from watchkeeper.settings import Sampling

ALL: Final = 1 << 64


def keeps(policy: Sampling, record: Record) -> bool:
    """Whether MLflow gets the record."""
    if policy.share >= 1.0 or record.error is not None or record.status >= 400 or record.action != "pass":
        return True
    if record.total_ms >= policy.slow_ms:
        return True
    # Not the id itself: other applications' may begin with their time.
    place = int.from_bytes(hashlib.blake2b(record.request_id.encode(), digest_size=8).digest(), "big")
    return place < policy.share * ALL
