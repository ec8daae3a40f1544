"""Windows of a streamed answer: what leaves was judged first. Three cursors: emitted ≤ approved ≤ received.

A window ends at a sentence, at 160 characters, or a quarter of a second after the last; it is judged together with the two
sentences before it. A tail as long as the longest secret stays back, so that nothing can be cut in two to get through.
Modes: `window`; `hold` (the whole answer is judged before any of it leaves); `audit` (all leaves at once, never blocked).
"""

import re
from collections.abc import AsyncIterator
from typing import Final

from watchkeeper.record import Verdict
from watchkeeper.serving.choice import Choice, Piece
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.judging import blocking
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.postprocess import postprocess
from watchkeeper.serving.redact import redact, releasable
from watchkeeper.serving.stages.check import citing_of, deliver
from watchkeeper.serving.stages.guard_out import judge_answer, judge_extra, judge_whole, merge_into, withhold
from watchkeeper.serving.stages.postprocess import conclude

WINDOW_CHARACTERS: Final = 160
LEAST_CHARACTERS: Final = 40
"""A window that only time ends is at least this long: judging costs an embedding."""
WINDOW_S: Final = 0.25
SENTENCE_END: Final = re.compile(r"[.!?。！？\n]\s*$")
CONTEXT_SENTENCES: Final = re.compile(r"[.!?。！？\n]\s+")


class Windows:
    """The guard over one streamed answer, while the journey is turned to it. `blocked`: nothing more of it may leave.
    What is said beside its text (calls, thoughts) leaves at the end, whole: nobody can use half a call."""

    def __init__(self, journey: Journey, parts: Parts, choice: Choice) -> None:
        self.blocked = False
        self._journey = journey
        self._choice = choice
        choice.delivered = ""
        self._parts = parts
        self._mode = parts.settings.guards.streaming if parts.settings.stages.guard_out else "audit"
        if journey.request.shape is not None:
            self._mode = "hold"  # JSON is of use when it is whole, and may yet have to be put right
        self._emitted = 0
        self._judged = 0
        self._judged_at = journey.clock()
        self._citing = citing_of(journey, choice) if parts.settings.stages.check else None
        if self._citing is not None and self._mode == "audit":
            self._citing.marked = False  # nothing waits there for the end of a sentence

    async def receive(self) -> AsyncIterator[Piece]:
        """What may leave of the answer as it now stands."""
        if self._mode == "audit":
            text = self._choice.answer[self._emitted :]
            self._emitted += len(text)
            if text:
                yield self._leaves(text)
        elif self._mode == "window" and not self.blocked and self._due():
            async for piece in self._release():
                yield self._leaves(piece)

    async def finish(self) -> AsyncIterator[Piece]:
        """Judges the answer as a whole and releases the rest of it, post-processed."""
        journey, choice = self._journey, self._choice
        rest = choice.answer[self._emitted :]
        if self._parts.settings.stages.guard_out and not self.blocked:
            with journey.step("guard_out") as span:
                of_text, rest = await self._judge_rest(span)
                beside, extra = await judge_extra(journey, self._parts, span)
            verdicts = (*of_text, *beside)
            merge_into(journey, verdicts)
            stop = blocking(verdicts)
            choice.extra_delivered = extra
            if stop and self._parts.settings.guards.streaming != "audit":
                withhold(journey, stop, exposed=self._emitted)
                self.blocked = True
        if self.blocked:
            conclude(journey)  # what was wrong with a withheld answer may not be told either
            return
        if self._parts.settings.stages.postprocess:
            with journey.step("postprocess"):
                rest = rest if choice.json is not None else self._finished(rest)
        if self._citing is not None:
            with journey.step("check"):
                rest = deliver(journey, choice.delivered or "", rest)
        if rest:
            self._emitted = len(choice.answer)
            yield self._leaves(rest)
        conclude(journey)
        if choice.leaving:
            yield Piece(choice.index, extra=choice.leaving)

    async def _judge_rest(self, span: Span) -> tuple[tuple[Verdict, ...], str]:
        """Verdicts on the answer as a whole, and what may leave of the rest of it."""
        if not self._emitted:
            return await judge_whole(self._journey, self._parts, span)
        judged = await judge_answer(self._journey, self._parts, self._choice.answer, span)
        return judged.verdicts, self._cleaned(self._emitted, len(self._choice.answer), judged.spans)

    def _leaves(self, text: str) -> Piece:
        self._choice.delivered = (self._choice.delivered or "") + text
        return Piece(self._choice.index, text, logprobs=self._choice.logprobs.beside(text))

    def _finished(self, rest: str) -> str:
        """The rest such that the answer ends as post-processing would end it, where what has left allows that."""
        delivered = self._choice.delivered or ""
        torn, drop = self._choice.finish_reason == "length", self._parts.settings.postprocess.torn == "drop"
        whole, _ = postprocess(delivered + rest, torn=torn, drop=drop)
        return whole[len(delivered) :] if whole.startswith(delivered) else rest

    def _due(self) -> bool:
        answer = self._choice.answer
        fresh = len(answer) - self._judged
        late = self._journey.clock() - self._judged_at >= WINDOW_S and fresh >= LEAST_CHARACTERS
        return late or fresh >= WINDOW_CHARACTERS or (fresh > 0 and SENTENCE_END.search(answer[-3:]) is not None)

    async def _release(self) -> AsyncIterator[str]:
        journey, answer = self._journey, self._choice.answer
        start = self._context_start()
        with journey.step("guard_out") as span:
            judged = await judge_answer(journey, self._parts, answer[start:], span)
        merge_into(journey, judged.verdicts)
        self._judged, self._judged_at = len(answer), journey.clock()
        stop = blocking(judged.verdicts)
        if stop:
            withhold(journey, stop, exposed=self._emitted)
            self.blocked = True
            return
        spans = tuple((first + start, last + start, category) for first, last, category in judged.spans)
        cut = releasable(answer)
        for first, last, _ in sorted(spans, reverse=True):
            if first < cut < last:
                cut = first
        citing = self._citing if self._citing and self._citing.marked else None
        cut, whole = citing.ready(answer, self._emitted, cut) if citing else (cut, False)
        if cut > self._emitted:
            piece = self._cleaned(self._emitted, cut, spans)
            self._emitted = cut
            yield citing.add(piece, whole=whole) if citing else piece

    def _cleaned(self, start: int, end: int, spans: tuple[tuple[int, int, str], ...]) -> str:
        inside = [(max(a, start) - start, min(b, end) - start, name) for a, b, name in spans if b > start and a < end]
        return redact(self._choice.answer[start:end], inside)[0]

    def _context_start(self) -> int:
        """Where the two sentences before what has not left begin."""
        ends = [match.end() for match in CONTEXT_SENTENCES.finditer(self._choice.answer, 0, self._emitted)]
        return ends[-3] if len(ends) >= 3 else 0
