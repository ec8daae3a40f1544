"""What the loop does besides its stages: a session's turn is stored for the next request, if that will look for it."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from watchkeeper.record import Message
from watchkeeper.serving.building import build
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.loop import Loop
from watchkeeper.serving.request import parse
from watchkeeper.settings import Settings, Stages, Upstream

ASKED = {"model": "watchkeeper", "messages": [{"role": "user", "content": "Hi"}], "watchkeeper": {"session": "s"}}


@pytest.mark.parametrize("grounded", [True, False])
def test_turns_are_stored_where_grounding_will_read_them(
    tmp_path: Path, upstreams: Callable[[], Any], grounded: bool
) -> None:
    settings = Settings(
        data=tmp_path,
        stages=Stages(embed=False, ground=grounded, guard_in=False, check=False, guard_out=False),
        upstreams=(Upstream(name="scripted", base_url=upstreams().url, model="scripted"),),
    )
    journey, stored = asyncio.run(travel(settings))
    assert journey.delivered
    assert bool(stored) == grounded


async def travel(settings: Settings) -> tuple[Journey, tuple[Message, ...]]:
    """One request through the loop, and what its session holds afterwards."""
    request = parse(json.dumps(ASKED).encode())
    async with aiohttp.ClientSession() as session:
        parts = build(settings, session, clock=time.monotonic, rng=random.Random(1))
        journey = Journey(
            request_id="a" * 32,
            received_at=1,
            request=request,
            release=parts.releases.champion(),
            clock=time.perf_counter,
            started=time.perf_counter(),
            turns=list(request.turns),
        )
        await Loop(parts).answer(journey)
        stored = parts.sessions.turns("default", "s", 6)
        await parts.close()
    return journey, stored
