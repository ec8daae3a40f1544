"""The spans of finished traces, as an OTLP export that says them in MLflow's own attributes.

Spans are read through the store of the client's own tracking client, in batches: `get_trace` is two requests each. Knows
nothing of what spans mean.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from watchkeeper.tracking.tracking import Logged, Tracking

if TYPE_CHECKING:
    from mlflow.entities import Trace

BATCH: Final = 10
"""Traces of one request: the most its server allows."""

_LOCATION: Final = "mlflow.trace.spansLocation"
_IN_STORE: Final = ("TRACKING_STORE", "ARCHIVE_REPO")


def exports(tracking: Tracking, traces: Sequence[Logged]) -> Iterator[tuple[Logged, bytes]]:
    """Each trace with its spans as a serialised `ExportTraceServiceRequest`; one whose spans MLflow cannot give is left
    out. Raises `TrackingUnavailable`."""
    by_id = {trace.trace_id: trace for trace in traces}
    in_store = [trace.trace_id for trace in traces if trace.tags.get(_LOCATION) in _IN_STORE]
    for start in range(0, len(in_store), BATCH):
        with tracking.speaking() as client:
            found = client._tracing_client.store.batch_get_traces(in_store[start : start + BATCH], None)
        yield from ((by_id[trace.info.trace_id], _export(trace)) for trace in found)
    for name in by_id.keys() - set(in_store):  # in files, as older servers and clients kept them
        trace = _from_files(tracking, name)
        if trace is not None:
            yield by_id[name], _export(trace)


def _from_files(tracking: Tracking, name: str) -> "Trace | None":
    with tracking.speaking() as client:
        from mlflow.exceptions import MlflowException

        try:
            found: Trace = client.get_trace(name, display=False)
        except MlflowException as error:
            if error.error_code in ("NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"):
                return None
            raise
        return found


def _export(trace: "Trace") -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    scoped.spans.extend(span.to_otel_proto() for span in trace.data.spans)
    return bytes(request.SerializeToString())
