"""Windows of a streamed answer: what leaves was judged first. Three cursors: emitted ≤ approved ≤ received.

A window ends at a sentence, at 160 characters, or a quarter of a second after the last; it is judged together with the two
sentences before it. A tail as long as the longest secret stays back, so that nothing can be cut in two to get through.
Modes: `window`; `hold` (the whole answer is judged before any of it leaves); `audit` (all leaves at once, never blocked).
"""

import re
from collections.abc import AsyncIterator
from typing import Final

from watchkeeper.serving.journey import Journey
from watchkeeper.serving.judging import blocking
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.postprocess import postprocess
from watchkeeper.serving.redact import redact, releasable
from watchkeeper.serving.stages.guard_out import judge_answer, merge_into, withhold

WINDOW_CHARACTERS: Final = 160
LEAST_CHARACTERS: Final = 40
"""A window that only time ends is at least this long: judging costs an embedding."""
WINDOW_S: Final = 0.25
SENTENCE_END: Final = re.compile(r"[.!?。！？\n]\s*$")
CONTEXT_SENTENCES: Final = re.compile(r"[.!?。！？\n]\s+")


class Windows:
    """The guard over one streamed answer. `blocked`: nothing more may leave, and the upstream is to be cancelled."""

    def __init__(self, journey: Journey, parts: Parts) -> None:
        self.blocked = False
        self._journey = journey
        self._parts = parts
        self._mode = parts.settings.guards.streaming if parts.settings.stages.guard_out else "audit"
        self._emitted = 0
        self._judged = 0
        self._judged_at = journey.clock()

    async def receive(self, text: str) -> AsyncIterator[str]:
        """What may leave now that `text` has come (and stands at the end of `journey.answer`)."""
        if self._mode == "audit" and text:
            self._emitted += len(text)
            yield text
        elif self._mode == "window" and self._due():
            async for piece in self._release():
                yield piece

    async def finish(self) -> AsyncIterator[str]:
        """Judges the answer as a whole and releases the rest of it, post-processed."""
        journey = self._journey
        if self._parts.settings.stages.guard_out and not self.blocked:
            with journey.step("guard_out") as span:
                judged = await judge_answer(journey, self._parts, journey.answer, span)
            merge_into(journey, judged.verdicts)
            stop = blocking(judged.verdicts)
            if stop and self._mode != "audit":
                withhold(journey, stop, exposed=self._emitted)
                self.blocked = True
            rest = self._cleaned(self._emitted, len(journey.answer), judged.spans)
        else:
            rest = journey.answer[self._emitted :]
        if self.blocked:
            return
        if self._parts.settings.stages.postprocess:
            with journey.step("postprocess"):
                rest = self._finished(rest)
        if rest:
            self._emitted = len(journey.answer)
            yield rest

    def _finished(self, rest: str) -> str:
        """The rest such that the answer ends as post-processing would end it, where what has left allows that."""
        delivered = self._journey.delivered or ""
        whole, _ = postprocess(delivered + rest)
        return whole[len(delivered) :] if whole.startswith(delivered) else rest

    def _due(self) -> bool:
        answer = self._journey.answer
        fresh = len(answer) - self._judged
        late = self._journey.clock() - self._judged_at >= WINDOW_S and fresh >= LEAST_CHARACTERS
        return late or fresh >= WINDOW_CHARACTERS or (fresh > 0 and SENTENCE_END.search(answer[-3:]) is not None)

    async def _release(self) -> AsyncIterator[str]:
        journey = self._journey
        start = self._context_start()
        with journey.step("guard_out") as span:
            judged = await judge_answer(journey, self._parts, journey.answer[start:], span)
        merge_into(journey, judged.verdicts)
        self._judged, self._judged_at = len(journey.answer), journey.clock()
        stop = blocking(judged.verdicts)
        if stop:
            withhold(journey, stop, exposed=self._emitted)
            self.blocked = True
            return
        spans = tuple((first + start, last + start, category) for first, last, category in judged.spans)
        cut = releasable(journey.answer)
        for first, last, _ in sorted(spans, reverse=True):
            if first < cut < last:
                cut = first
        if cut > self._emitted:
            piece = self._cleaned(self._emitted, cut, spans)
            self._emitted = cut
            yield piece

    def _cleaned(self, start: int, end: int, spans: tuple[tuple[int, int, str], ...]) -> str:
        inside = [(max(a, start) - start, min(b, end) - start, name) for a, b, name in spans if b > start and a < end]
        return redact(self._journey.answer[start:end], inside)[0]

    def _context_start(self) -> int:
        """Where the two sentences before what has not left begin."""
        ends = [match.end() for match in CONTEXT_SENTENCES.finditer(self._journey.answer, 0, self._emitted)]
        return ends[-3] if len(ends) >= 3 else 0
