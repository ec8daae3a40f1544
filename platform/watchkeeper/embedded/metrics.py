"""What the model's server counts, for Prometheus: answers, tokens, how long they take, and who waits. No text in it."""

import math
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FIRST_S: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Counts since the server started, in a registry of their own. `running`, `waiting`: how many answers, now."""

    def __init__(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._answers = Counter("watchkeeper_model_answers", "Answers, by how they ended", ("finish",), registry=registry)
        self._tokens = Counter(
            "watchkeeper_model_tokens", "Tokens read, found read before, written", ("kind",), registry=registry
        )
        self._first = Histogram(
            "watchkeeper_model_time_to_first_token_seconds",
            "From request to first token",
            buckets=FIRST_S,
            registry=registry,
        )
        self._each = Histogram(
            "watchkeeper_model_time_per_token_seconds",
            "Of an answer's tokens after the first, on average",
            buckets=TOKEN_S,
            registry=registry,
        )
        Gauge("watchkeeper_model_running", "Answers that are read for or written", registry=registry).set_function(running)
        Gauge("watchkeeper_model_waiting", "Answers in line", registry=registry).set_function(waiting)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def answering(self, prompt_tokens: int, clock: Callable[[], float] = time.perf_counter) -> "Timing":
        return Timing(self, prompt_tokens, clock)

    def ended(self, timing: "Timing", finish: str) -> None:
        """An answer is at its end: stop, length, error, or cancelled."""
        self._answers.labels(finish).inc()
        self._tokens.labels("output").inc(timing.tokens)
        if timing.tokens:
            self._tokens.labels("input").inc(timing.prompt_tokens - timing.known)
            self._tokens.labels("cached").inc(timing.known)
            self._first.observe(timing.first - timing.started)
        if timing.tokens > 1:
            self._each.observe((timing.last - timing.first) / (timing.tokens - 1))


class Timing:
    """When the tokens of one answer came, in seconds of `clock`."""

    def __init__(self, metrics: Metrics, prompt_tokens: int, clock: Callable[[], float]) -> None:
        self.prompt_tokens = prompt_tokens
        self.known = 0
        self.tokens = 0
        self.first = self.last = math.nan
        self.started = clock()
        self._metrics = metrics
        self._clock = clock
        self._ended = False

    def token(self, known: int) -> None:
        self.last = self._clock()
        if not self.tokens:
            self.first, self.known = self.last, known
        self.tokens += 1

    def end(self, finish: str) -> None:
        """Counts once; later ones change nothing."""
        if not self._ended:
            self._ended = True
            self._metrics.ended(self, finish)
