"""Replays: cases put to releases through the real loop, in this process. Every answer is a record, even one that failed.

The set-up's own upstreams, encoder, guards and knowledge; nothing goes into the spool, and no session is read or written.
The releases take turns case by case, and who goes first changes with every case: a slow minute hits all of them, and none
gains from what an upstream kept of the same prompt. Knows nothing of scores, or of where the records go.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec

from watchkeeper.record import Record
from watchkeeper.release import Release
from watchkeeper.serving.building import build
from watchkeeper.serving.failure import freeze, refuse
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.loop import Loop
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.request import Refused, parse
from watchkeeper.settings import Settings
from watchkeeper_evaluations.dataset import Case

CONCURRENCY: Final = 4
ANSWER_S: Final = 600.0
"""An answer that takes longer has failed."""
KNOWLEDGE_S: Final = 120.0
REPLICA: Final = "replay"

Progress = Callable[[int, int], object]
"""Called with how many answers there are, and how many there will be."""


class ReplayImpossible(Exception):
    """Something that every answer needs is not there; the message is one line."""


@dataclass(frozen=True)
class Asked:
    """One case put to one release, for the `repeat`-th time."""

    case: Case
    release: Release
    repeat: int


def order(cases: Sequence[Case], releases: Sequence[Release], repeats: int) -> Iterator[Asked]:
    """In which order cases are asked: all releases for a case before the next case, another one first each time."""
    for repeat in range(repeats):
        for number, case in enumerate(cases):
            first = (number + repeat) % len(releases)
            for release in (*releases[first:], *releases[:first]):
                yield Asked(case, release, repeat)


def replay(
    settings: Settings,
    cases: Sequence[Case],
    releases: Sequence[Release],
    *,
    tags: dict[str, str],
    repeats: int = 1,
    concurrency: int = CONCURRENCY,
    answer_s: float = ANSWER_S,
    knowledge_s: float = KNOWLEDGE_S,
    progress: Progress = lambda done, total: None,
    wall: Callable[[], int] = time.time_ns,
    rng: random.Random | None = None,
) -> list[Record]:
    """One record for each case, release and repeat, in the order of `order`: source `replay`, `tags` with `case` (and
    `repeat` where there are several; `request`, that the case was made from), and the case's session.

    `wall`: nanoseconds since the epoch. Raises `ReplayImpossible`; what fails later is a record that says so.
    """
    asked = list(order(cases, releases, repeats))
    return asyncio.run(
        _Replay(settings, asked, tags, answer_s, progress, wall).run(concurrency, knowledge_s, rng or random.Random())
    )


@dataclass
class _Replay:
    settings: Settings
    asked: list[Asked]
    tags: dict[str, str]
    answer_s: float
    progress: Progress
    wall: Callable[[], int]

    async def run(self, concurrency: int, knowledge_s: float, rng: random.Random) -> list[Record]:
        records: dict[int, Record] = {}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            parts = build(self.settings, session, clock=time.monotonic, rng=rng)
            try:
                await self._make_sure(parts, knowledge_s)
                waiting = iter(enumerate(self.asked))

                async def work() -> None:
                    for at, asked in waiting:
                        records[at] = await self._answer(parts, asked)
                        self.progress(len(records), len(self.asked))

                async with asyncio.TaskGroup() as group:
                    for _ in range(concurrency):
                        group.create_task(work())
            finally:
                await parts.close()
        return [records[at] for at in range(len(self.asked))]

    async def _make_sure(self, parts: Parts, knowledge_s: float) -> None:
        """What is missing for all answers alike is said before the first, not found in every row."""
        for release in dict.fromkeys(asked.release.id for asked in self.asked):
            model = next(asked.release.model for asked in self.asked if asked.release.id == release)
            if model is not None and parts.upstreams.named(model) is None:
                there = ", ".join(upstream.name for upstream in parts.upstreams.all)
                raise ReplayImpossible(f"{release} is for the upstream {model!r}, which is not set; there is {there}")
        if self.settings.stages.embed and not await parts.encoder.healthy():
            raise ReplayImpossible(
                f"the encoder does not answer at {self.settings.encoder.url}; start `watchkeeper encoder`"
            )
        if parts.knowledge is None or not self.settings.stages.ground:
            return
        if not await asyncio.to_thread(parts.knowledge.wait, knowledge_s) or not parts.knowledge.complete:
            why = "; ".join(f"{problem.path} {problem.reason}".strip() for problem in parts.knowledge.problems)
            raise ReplayImpossible(f"the knowledge base is not indexed after {knowledge_s:g} s{f': {why}' if why else ''}")

    async def _answer(self, parts: Parts, asked: Asked) -> Record:
        # By its id: who names a release is never drawn for a challenger.
        body = msgspec.json.encode({"model": asked.release.id, "messages": asked.case.messages})
        request = parse(body)
        journey = Journey(
            request_id=uuid.uuid4().hex,
            received_at=self.wall() // 1000,
            request=request,
            release=asked.release,
            clock=time.perf_counter,
            started=time.perf_counter(),
            replica=REPLICA,
            turns=list(request.turns),
        )
        try:
            async with asyncio.timeout(self.answer_s):
                await Loop(parts).answer(journey)
        except TimeoutError:
            refuse(journey, Refused(504, "replay_timeout", f"no answer within {self.answer_s:g} s"))
        except Exception as error:  # its record says what became of it
            refuse(journey, error)
        tags = {**self.tags, "case": asked.case.case_id}
        if any(other.repeat for other in self.asked):
            tags["repeat"] = str(asked.repeat)
        if asked.case.request_id is not None:
            tags["request"] = asked.case.request_id
        return msgspec.structs.replace(
            freeze(journey, parts.redact),
            release=asked.release.id,
            digest=asked.release.digest,
            source="replay",
            tags=tags,
            session=asked.case.session,
        )
