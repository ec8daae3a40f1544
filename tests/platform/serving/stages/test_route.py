"""Which upstreams a request may have: those that it names, those of its route, or all."""

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from watchkeeper.serving.building import build
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.request import parse
from watchkeeper.serving.stages import admit, route
from watchkeeper.settings import Route, Settings, Upstream

UPSTREAMS = tuple(Upstream(name=name, base_url="http://127.0.0.1:1/v1", model="m") for name in ("a", "b", "c"))
ROUTES = (
    Route(name="some", upstreams=("c", "a")),
    Route(name="listed", upstreams=("c", "b", "a"), order="listed"),
    Route(name="open"),
)


def routed(data: Path, *bodies: dict[str, Any]) -> list[tuple[list[str], dict[str, Any]]]:
    """Each body → its candidates, and what the span of route says."""

    async def run() -> list[tuple[list[str], dict[str, Any]]]:
        found = []
        async with aiohttp.ClientSession() as session:
            settings = Settings(data=data, upstreams=UPSTREAMS, routes=ROUTES)
            parts = build(settings, session, clock=time.monotonic, rng=random.Random(1))
            for body in bodies:
                request = parse(json.dumps({"messages": [{"role": "user", "content": "Hi"}], **body}).encode())
                journey = Journey(
                    request_id="a" * 32, received_at=1, request=request, release=parts.releases.champion(),
                    clock=time.perf_counter, started=time.perf_counter(), turns=list(request.turns),
                )  # fmt: skip
                for stage in (admit.STAGE, route.STAGE):
                    with journey.step(stage.name) as span:
                        await stage.run(journey, parts, span)
                found.append(([upstream.name for upstream in journey.candidates], dict(span.attributes)))
            await parts.close()
        return found

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "model", "allowed"),
    [
        ("some", "watchkeeper", {"a", "c"}),
        ("some", "b", {"b"}),
        ("open", "watchkeeper", {"a", "b", "c"}),
        ("unknown", "watchkeeper", {"a", "b", "c"}),
        ("some", "builtin@0", {"a", "c"}),
    ],
)
def test_a_route_narrows_the_upstreams_unless_the_request_names_one(
    tmp_path: Path, name: str, model: str, allowed: set[str]
) -> None:
    body = {"model": model, "watchkeeper": {"route": name}}
    found = routed(tmp_path, *[body] * 30)
    assert {frozenset(candidates) for candidates, _ in found} == {frozenset(allowed)}
    assert {candidates[0] for candidates, _ in found} == allowed, "the traffic is shared among them"
    assert {said["policy"] == "named" for _, said in found} == {model == "b"}


def test_a_listed_route_tries_its_upstreams_in_its_order(tmp_path: Path) -> None:
    found = routed(tmp_path, *[{"model": "watchkeeper", "watchkeeper": {"route": "listed"}}] * 20)
    assert {tuple(candidates) for candidates, _ in found} == {("c", "b", "a")}
    assert {said["policy"] for _, said in found} == {"listed"}
    assert found[0][1]["candidates"] == "c, b, a"
