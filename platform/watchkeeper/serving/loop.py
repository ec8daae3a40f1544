"""The loop: the order in which a prompt travels. Everything else about a stage is in its own file under `stages/`.

    admit ▸ preprocess ▸ embed ▸ ground ▸ guard_in ▸ route ▸ generate ▸ check ▸ guard_out ▸ postprocess

What `check` found is told last, in the answer itself, where the release wants it. On a stream, `guard_out` also runs on
each window of the answer before it leaves (stream.py).
"""

from collections.abc import AsyncGenerator
from typing import Final

from watchkeeper.serving import cascade, recall
from watchkeeper.serving.choice import Piece
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.request import Refused
from watchkeeper.serving.stages import (
    admit,
    check,
    embed,
    generate,
    ground,
    guard_in,
    guard_out,
    postprocess,
    preprocess,
    route,
)
from watchkeeper.serving.stages.stage import Stage
from watchkeeper.serving.stream import Windows
from watchkeeper.serving.structured import INVALID_JSON
from watchkeeper.serving.wire import Delta, UpstreamFailed

BEFORE: Final[tuple[Stage, ...]] = (admit.STAGE, preprocess.STAGE, embed.STAGE, ground.STAGE, guard_in.STAGE, route.STAGE)
AFTER: Final[tuple[Stage, ...]] = (check.STAGE, guard_out.STAGE, postprocess.STAGE, check.DELIVER)


class Loop:
    """Takes journeys through the stages. Raises `Refused` for whatever ends one without an answer."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._off = frozenset(name for name, runs in parts.settings.stages if not runs)

    async def answer(self, journey: Journey) -> None:
        """The whole journey of a plain request; what the client gets is `delivered` of each of the `journey.choices`."""
        await self._run(BEFORE, journey)
        async with recall.alone(journey, self.parts):
            async for delta in self._generate(journey):
                journey.take(delta)
            for choice in journey.choices:
                journey.choice = choice
                journey.delivered = journey.answer
                await self._run(AFTER, journey)
            recall.keep(journey, self.parts)
        await self._remember(journey)

    async def open(self, journey: Journey) -> AsyncGenerator[Piece, None]:
        """The journey of a streamed request up to the answer's first piece; then what may leave, in pieces.

        What is refused is refused here, before anything has left. The iterator never raises for an upstream that breaks
        off: it ends, with `journey.error` set.
        """
        await self._run(BEFORE, journey)
        deltas = self._generate(journey)
        first = await anext(deltas, None)
        return self._stream(journey, first, deltas)

    async def _stream(
        self, journey: Journey, first: Delta | None, deltas: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[Piece, None]:
        windows = [Windows(journey, self.parts, choice) for choice in journey.choices]
        delta = first
        try:
            while delta is not None:
                journey.take(delta)
                async for piece in windows[journey.choice.index].receive():
                    yield piece
                delta = None if all(window.blocked for window in windows) else await anext(deltas, None)
        except (Refused, UpstreamFailed) as failure:
            journey.error, journey.finish_reason = failure.code, journey.finish_reason or "error"
            if failure.code == INVALID_JSON:
                journey.status = failure.status
                return
        finally:
            await deltas.aclose()
        for choice, window in zip(journey.choices, windows, strict=True):
            journey.choice = choice
            await self._run((check.STAGE,), journey)
            async for piece in window.finish():
                yield piece
        recall.keep(journey, self.parts)
        await self._remember(journey)

    async def _run(self, stages: tuple[Stage, ...], journey: Journey) -> None:
        for stage in stages:
            if stage.name in self._off:
                continue
            with journey.step(stage.name) as span:
                try:
                    await stage.run(journey, self.parts, span)
                except Refused:
                    raise
                except Exception as error:  # a stage that breaks costs its own work, or the request where it is closed
                    span.status = "degraded"
                    span.attributes["error"] = type(error).__name__
                    if stage.on_error == "closed":
                        raise Refused(503, f"{stage.name}_failed", f"the stage {stage.name} failed; try again") from error

    async def _generate(self, journey: Journey) -> AsyncGenerator[Delta, None]:
        """The upstream's deltas, in a cascade those of a second one, or a kept answer; only the time spent waiting for them
        counts as `generate`."""
        deltas = recall.answers(journey, self.parts, cascade.answer(journey, self.parts))
        try:
            while True:
                with journey.step("generate"):
                    delta = await anext(deltas, None)
                if delta is None:
                    break
                yield delta
            if journey.request.shape is not None:
                with journey.step("generate") as span:
                    await generate.settle(journey, self.parts, span)
        except UpstreamFailed as failure:
            raise _refused(failure) from failure
        finally:
            await deltas.aclose()
            generate.conclude(journey, self.parts)

    async def _remember(self, journey: Journey) -> None:
        journey.choice = journey.choices[0]
        if self.parts.settings.stages.ground and journey.error is None and journey.delivered:
            await ground.remember(journey, self.parts)


def _refused(failure: UpstreamFailed) -> Refused:
    """An upstream's failure as the client is told of it."""
    return Refused(failure.status, failure.code, failure.message, param=failure.param, retry_after=failure.retry_after)
