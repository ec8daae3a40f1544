"""The door to MLflow: the only import of its client (2 s of CPU, 164 MB), inside functions, so importing this is cheap.

Sets nothing in MLflow that other code would see (no tracking URI, no active experiment or run), and may be used by many
threads.
"""

from watchkeeper.tracking.server import BEHIND, server_command
from watchkeeper.tracking.tracking import TRACE_PREFIX, Tracking, TrackingUnavailable

__all__ = ["BEHIND", "TRACE_PREFIX", "Tracking", "TrackingUnavailable", "server_command"]
