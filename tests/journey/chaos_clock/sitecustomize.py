"""A system clock that steps, for every Python process that finds this folder on its path (libfaketime is not needed).

`CHAOS_CLOCK` names a file of 8 bytes: nanoseconds (int64) that are added to `time.time` and `time.time_ns` from then on, in
processes that run already too. The monotonic clock goes on, as it does when a real clock is set.
"""

import mmap
import os
import struct
import time

if place := os.environ.get("CHAOS_CLOCK"):
    with open(place, "rb") as file:
        _OFFSET = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    _TRUE_NS = time.time_ns

    def _time_ns() -> int:
        return int(_TRUE_NS() + struct.unpack("<q", _OFFSET[:8])[0])

    def _time() -> float:
        return _time_ns() / 1e9

    time.time_ns = _time_ns
    time.time = _time
