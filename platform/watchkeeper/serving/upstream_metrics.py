"""How the upstreams stand and what became of their calls, for Prometheus: read when it is asked, so that no request pays.

As one gateway worker sees it: where several share a port, a scrape meets any of them.
"""

import math
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchkeeper.serving.breaker import State
from watchkeeper.serving.upstreams import Upstreams

STATES: Final[tuple[State, ...]] = ("closed", "half_open", "open")


class UpstreamCollector(Collector):
    """`collect` is called for each scrape."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def collect(self) -> Iterator[Metric]:
        breaker = GaugeMetricFamily(
            "watchkeeper_upstream_breaker", "1 for the state that an upstream's breaker is in", labels=("upstream", "state")
        )
        tokens = GaugeMetricFamily(
            "watchkeeper_upstream_outstanding_tokens", "Tokens asked for and not answered yet", labels=("upstream",)
        )
        latency = GaugeMetricFamily(
            "watchkeeper_upstream_latency_seconds",
            "Peak EWMA: of first tokens, and of whole answers where they do not stream; NaN: not known",
            labels=("upstream", "kind"),
        )
        calls = CounterMetricFamily(
            "watchkeeper_upstream_calls", "Calls of upstreams, by how they ended", labels=("upstream", "outcome")
        )
        for name, seen in self._upstreams.seen().items():
            for state in STATES:
                breaker.add_metric((name, state), seen.state == state)
            tokens.add_metric((name,), seen.outstanding_tokens)
            for kind, seconds in seen.latency_s.items():
                latency.add_metric((name, kind), math.nan if seconds is None else seconds)
            for outcome, count in seen.calls.items():
                calls.add_metric((name, outcome), count)
        yield from (breaker, tokens, latency, calls)
        yield from self._beyond_the_first()

    def _beyond_the_first(self) -> Iterator[Metric]:
        """Retries, hedges, and the budget that both come from."""
        hedges = CounterMetricFamily(
            "watchkeeper_hedges", "Second upstreams asked for a late first token: asked, won, refused", labels=("fate",)
        )
        retries = CounterMetricFamily(
            "watchkeeper_retries",
            "Calls after one that failed before it had said anything: retried, refused",
            labels=("fate",),
        )
        for family, counted, fates in (
            (hedges, self._upstreams.hedges, ("asked", "won", "refused")),
            (retries, self._upstreams.retries, ("retried", "refused")),
        ):
            for fate in fates:
                family.add_metric((fate,), counted[fate])
        budget = GaugeMetricFamily("watchkeeper_retry_budget", "How many such calls there may be now")
        budget.add_metric((), self._upstreams.budget.left)
        yield from (hedges, retries, budget)
