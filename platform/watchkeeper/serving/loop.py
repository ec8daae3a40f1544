"""The loop: the order in which a prompt travels. Everything else about a stage is in its own file under `stages/`.

    admit ▸ preprocess ▸ embed ▸ ground ▸ guard_in ▸ route ▸ generate ▸ check ▸ guard_out ▸ postprocess

On a stream, `guard_out` also runs on each window of the answer before it leaves (stream.py).
"""

from collections.abc import AsyncGenerator
from typing import Final

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
from watchkeeper.serving.wire import Delta, UpstreamFailed

BEFORE: Final[tuple[Stage, ...]] = (admit.STAGE, preprocess.STAGE, embed.STAGE, ground.STAGE, guard_in.STAGE, route.STAGE)
AFTER: Final[tuple[Stage, ...]] = (check.STAGE, guard_out.STAGE, postprocess.STAGE)


class Loop:
    """Takes journeys through the stages. Raises `Refused` for whatever ends one without an answer."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    async def answer(self, journey: Journey) -> None:
        """The whole journey of a plain request; what the client gets is `journey.delivered`."""
        await self._run(BEFORE, journey)
        async for delta in self._generate(journey):
            journey.take(delta)
        journey.delivered = journey.answer
        await self._run(AFTER, journey)
        await self._remember(journey)

    async def open(self, journey: Journey) -> AsyncGenerator[str, None]:
        """The journey of a streamed request up to the answer's first piece; then the text that may leave, in pieces.

        What is refused is refused here, before anything has left. The iterator never raises for an upstream that breaks
        off: it ends, with `journey.error` set.
        """
        await self._run(BEFORE, journey)
        deltas = self._generate(journey)
        first = await anext(deltas, None)
        return self._stream(journey, first, deltas)

    async def _stream(
        self, journey: Journey, first: Delta | None, deltas: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[str, None]:
        windows = Windows(journey, self.parts)
        journey.delivered = ""
        delta = first
        try:
            while delta is not None and not windows.blocked:
                journey.take(delta)
                async for text in windows.receive(delta.text):
                    journey.delivered += text
                    yield text
                delta = None if windows.blocked else await anext(deltas, None)
        except (Refused, UpstreamFailed) as failure:
            journey.error, journey.finish_reason = failure.code, journey.finish_reason or "error"
        finally:
            await deltas.aclose()
        await self._run((check.STAGE,), journey)
        async for text in windows.finish():
            journey.delivered += text
            yield text
        await self._remember(journey)

    async def _run(self, stages: tuple[Stage, ...], journey: Journey) -> None:
        switches = self.parts.settings.stages
        for stage in stages:
            if not getattr(switches, stage.name, True):
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
        """The upstream's deltas; only the time spent waiting for them counts as `generate`."""
        deltas = generate.call(journey, self.parts)
        try:
            while True:
                with journey.step("generate") as span:
                    delta = await anext(deltas, None)
                    generate.describe(journey, span)
                if delta is None:
                    return
                yield delta
        except UpstreamFailed as failure:
            raise Refused(failure.status, failure.code, failure.message, retry_after=failure.retry_after) from failure
        finally:
            await deltas.aclose()

    async def _remember(self, journey: Journey) -> None:
        if self.parts.settings.stages.ground and journey.error is None and journey.delivered:
            await ground.remember(journey, self.parts)
