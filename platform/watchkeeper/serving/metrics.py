"""What one gateway worker counts, for Prometheus: requests, time by stage, verdicts, tokens; and how deep the spool of all
workers is. No text of anyone's in it."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from watchkeeper.record import STAGES, Record, Stage
from watchkeeper.serving.allowance import Allowance
from watchkeeper.settings import Tenant
from watchkeeper.telemetry.depth import Depth

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
UNSORTED = 1_000
"""Times of a stage that are kept before they are put into their buckets, all at once."""

SPOOL = {
    "rows": "Rows in the spool's files, of all workers, delivered or not",
    "bytes": "Size of the spool's files, of all workers",
    "limit_bytes": "What they may come to (gateway.max_spool_bytes)",
    "disk_free_bytes": "What the spool's disk has left",
    "oldest_seconds": "Age of the oldest row that is still in the spool",
    "unreadable": "Files of the spool that are torn or cannot be read",
    "full": "1 while this worker accepts no request for want of room or a failing disk",
    "shipper_silent_seconds": "How old the shipper's last report is; NaN: there is none",
}


class StageTimes(Collector):
    """A histogram by stage. The library's own sorts each time in when it comes, which was a tenth of all that counting and
    recording a request takes."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {name: [] for name in STAGES}
        self._buckets: dict[str, NDArray[np.int64]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            times = self._times.get(stage.name)
            if times is None:
                times = self._times[stage.name] = []
            times.append(stage.ms)
            if len(times) >= UNSORTED:
                self._sort(stage.name)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily("watchkeeper_stage_seconds", "Time by stage", labels=("stage",))
        for name in self._times:
            self._sort(name)
            counts = np.cumsum(self._buckets[name]).tolist()
            buckets = [(str(bound), count) for bound, count in zip((*BUCKETS_S, "+Inf"), counts, strict=True)]
            family.add_metric((name,), buckets, self._sums[name])
        yield family

    def _sort(self, name: str) -> None:
        taken, self._times[name] = np.array(self._times[name]) / 1000, []
        counts = np.bincount(np.searchsorted(BUCKETS_S, taken), minlength=len(BUCKETS_S) + 1)
        self._buckets[name] = self._buckets.get(name, np.zeros_like(counts)) + counts
        self._sums[name] = self._sums.get(name, 0.0) + float(taken.sum())


class Metrics:
    """Counts since the worker started, in a registry of their own."""

    def __init__(self, *others: Collector) -> None:
        """`others`: what tells of itself when it is asked."""
        self._registry = CollectorRegistry()
        registry = self._registry
        for other in others:
            registry.register(other)
        self._requests = Counter("watchkeeper_requests", "Requests", ("status", "action"), registry=registry)
        self._verdicts = Counter(
            "watchkeeper_verdicts", "Verdicts that did not pass", ("guard", "action"), registry=registry
        )
        self._stages = StageTimes()
        registry.register(self._stages)
        self._tokens = Counter("watchkeeper_tokens", "Tokens", ("kind",), registry=registry)
        self._feedback = Counter("watchkeeper_feedback", "Feedback on answers", ("status",), registry=registry)
        self._spans = Counter("watchkeeper_spans", "Spans of others, by what became of them", ("fate",), registry=registry)
        self._traces = Counter(
            "watchkeeper_traces", "Traces of others, by what became of them", ("fate",), registry=registry
        )
        # Looked up once: by their labels they would be for each request, and that is most of what counting costs.
        self._answered: dict[tuple[int, str], Counter] = {}
        self._inputs, self._outputs = self._tokens.labels("input"), self._tokens.labels("output")
        self._cache = Counter(
            "watchkeeper_cache", "Requests, by what the cache had for them", ("result",), registry=registry
        )
        self._cached = {
            "entries": Gauge("watchkeeper_cache_entries", "Answers that are kept", registry=registry),
            "bytes": Gauge("watchkeeper_cache_bytes", "What they take, about", registry=registry),
        }
        self._in_flight = Gauge("watchkeeper_in_flight", "Requests being served", registry=registry)
        self._turned_away = Counter(
            "watchkeeper_refused", "Requests that were not admitted", ("tenant", "reason"), registry=registry
        )
        self._cost = Counter("watchkeeper_cost_usd", "What requests cost", ("tenant",), registry=registry)
        self._waiting = Gauge("watchkeeper_queue_depth", "Requests that wait for their turn", registry=registry)
        period = ("tenant", "period")
        self._budget = Gauge("watchkeeper_budget_usd", "What a tenant may spend", period, registry=registry)
        self._spent = Gauge(
            "watchkeeper_budget_spent_usd", "What it has spent of it, by all workers", period, registry=registry
        )
        self._alarm = Gauge("watchkeeper_budget_alert", "1 from its share alert_at on", period, registry=registry)
        self._spool = {name: Gauge(f"watchkeeper_spool_{name}", says, registry=registry) for name, says in SPOOL.items()}
        self._pending = Gauge("watchkeeper_sink_pending_rows", "Rows the sink does not have", ("sink",), registry=registry)
        self._lag = Gauge("watchkeeper_sink_lag_seconds", "Age of the oldest of them", ("sink",), registry=registry)
        until = "When the sink will have caught up, at its pace; NaN: not known, or it falls behind"
        self._done_in = Gauge("watchkeeper_sink_done_in_seconds", until, ("sink",), registry=registry)
        self._failing = Gauge("watchkeeper_sink_failing", "1 while the sink takes nothing", ("sink",), registry=registry)

    def count(self, record: Record) -> None:
        """Counts a finished request."""
        answered = self._answered.get((record.status, record.action))
        if answered is None:
            answered = self._requests.labels(str(record.status), record.action)
            self._answered[record.status, record.action] = answered
        answered.inc()
        self._stages.observe(record.stages)
        for verdict in record.verdicts:
            if verdict.action != "pass":
                self._verdicts.labels(verdict.guard, verdict.action).inc()
        if record.cost_usd:
            self._cost.labels(record.tenant).inc(record.cost_usd)
        admit = record.stages[0] if record.stages else None
        if admit is not None and "refused" in admit.attributes:
            self._turned_away.labels(record.tenant, str(admit.attributes["refused"])).inc()
        self._inputs.inc(record.input_tokens)
        self._outputs.inc(record.output_tokens)

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

    def recalled(self, result: str) -> None:
        """Counts a request by what the cache had for it: exact, near, miss, bypass."""
        self._cache.labels(result).inc()

    def cached(self, entries: int, size: int) -> None:
        """How much is kept now."""
        self._cached["entries"].set(entries)
        self._cached["bytes"].set(size)

    def spool(self, depth: Depth, full: bool) -> None:
        """How the spool is now. What each sink has is the shipper's word: `shipper_silent_seconds` says how old it is."""
        now: dict[str, float] = {
            "rows": depth.rows,
            "bytes": depth.room.used,
            "limit_bytes": depth.room.limit,
            "disk_free_bytes": depth.room.free,
            "oldest_seconds": depth.oldest_s or 0.0,
            "unreadable": len(depth.unreadable),
            "full": full,
            "shipper_silent_seconds": math.nan if depth.said_s is None else depth.said_s,
        }
        for name, value in now.items():
            self._spool[name].set(value)
        for name, sink in depth.sinks.items():
            self._pending.labels(name).set(sink.pending)
            self._lag.labels(name).set(sink.lag_s or 0.0)
            self._done_in.labels(name).set(math.nan if sink.done_in_s is None else sink.done_in_s)
            self._failing.labels(name).set(sink.error is not None)

    def admission(self, waiting: int, allowances: Iterable[tuple[Tenant, Allowance]]) -> None:
        """How many wait, and how the budgets stand; where `allowances` fails, nothing old is told of them."""
        self._waiting.set(waiting)
        for gauge in (self._budget, self._spent, self._alarm):
            gauge.clear()
        for tenant, allowance in allowances:
            for period, budget, spent in (
                ("day", tenant.usd_per_day, allowance.day.usd),
                ("month", tenant.usd_per_month, allowance.month.usd),
            ):
                if budget is not None:
                    self._budget.labels(tenant.name, period).set(budget)
                    self._spent.labels(tenant.name, period).set(spent)
                    self._alarm.labels(tenant.name, period).set(spent >= tenant.alert_at * budget)

    def text(self, in_flight: int) -> bytes:
        """All of it in the text exposition format."""
        self._in_flight.set(in_flight)
        return generate_latest(self._registry)
