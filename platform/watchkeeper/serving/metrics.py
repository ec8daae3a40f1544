"""What one gateway worker counts, for Prometheus: requests, time by stage, verdicts, tokens. No text of anyone's in it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from watchkeeper.record import Record

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counts since the worker started, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter("watchkeeper_requests", "Requests", ("status", "action"), registry=registry)
        self._verdicts = Counter(
            "watchkeeper_verdicts", "Verdicts that did not pass", ("guard", "action"), registry=registry
        )
        self._stages = Histogram(
            "watchkeeper_stage_seconds", "Time by stage", ("stage",), buckets=BUCKETS_S, registry=registry
        )
        self._tokens = Counter("watchkeeper_tokens", "Tokens", ("kind",), registry=registry)
        self._feedback = Counter("watchkeeper_feedback", "Feedback on answers", ("status",), registry=registry)
        self._spans = Counter("watchkeeper_spans", "Spans of others, by what became of them", ("fate",), registry=registry)
        self._traces = Counter(
            "watchkeeper_traces", "Traces of others, by what became of them", ("fate",), registry=registry
        )
        self._in_flight = Gauge("watchkeeper_in_flight", "Requests being served", registry=registry)

    def count(self, record: Record) -> None:
        """Counts a finished request."""
        self._requests.labels(str(record.status), record.action).inc()
        for stage in record.stages:
            self._stages.labels(stage.name).observe(stage.ms / 1000)
        for verdict in record.verdicts:
            if verdict.action != "pass":
                self._verdicts.labels(verdict.guard, verdict.action).inc()
        self._tokens.labels("input").inc(record.input_tokens)
        self._tokens.labels("output").inc(record.output_tokens)

    def refused(self, status: int) -> None:
        """Counts a request that could not be parsed, and so left no record."""
        self._requests.labels(str(status), "none").inc()

    def said(self, status: int) -> None:
        """Counts a feedback by how it was answered."""
        self._feedback.labels(str(status)).inc()

    def spans(self, fate: str, count: int) -> None:
        """Counts spans of other people's exports: kept, again (sent before), late, refused."""
        self._spans.labels(fate).inc(count)

    def traces(self, fate: str, count: int) -> None:
        """Counts other people's traces as they are done with: recorded, or no_request."""
        self._traces.labels(fate).inc(count)

    def text(self, in_flight: int) -> bytes:
        """All of it in the text exposition format."""
        self._in_flight.set(in_flight)
        return generate_latest(self._registry)
