"""What ground does after the answer: a session that cannot be stored costs the session, never the answer."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any, cast

from watchkeeper.release import Follower
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.request import parse
from watchkeeper.serving.sessions import Sessions
from watchkeeper.serving.stages.ground import remember
from watchkeeper.settings import Settings


def test_an_answer_outlives_a_broken_store_also_when_the_stage_is_off(tmp_path: Path) -> None:
    (tmp_path / "sessions.sqlite").mkdir()
    releases = Follower(Path("nowhere"), time.monotonic)
    parts = Parts(
        settings=Settings(),
        releases=releases,
        encoder=cast(Any, None),
        knowledge=None,
        sessions=Sessions(tmp_path / "sessions.sqlite"),
        guards=(),
        redact=Redactor(),
        upstreams=cast(Any, None),
        tokens=cast(Any, None),
    )
    turn = {"role": "user", "content": "Hi"}
    body = json.dumps({"model": "watchkeeper", "messages": [turn], "watchkeeper": {"session": "s"}}).encode()
    journey = Journey(
        request_id="0" * 32,
        received_at=1,
        request=parse(body),
        release=releases.champion(),
        clock=time.perf_counter,
        started=time.perf_counter(),
    )
    journey.delivered = "Hello"
    with journey.step("generate") as span:
        pass
    asyncio.run(remember(journey, parts))
    assert span.attributes["not_stored"]
