"""What admit decides: which release serves whom, and that the record says why."""

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from watchkeeper.release import CHALLENGER_FILE, FILE_NAME, Challenger, Release, file_of
from watchkeeper.serving.building import build
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.request import parse
from watchkeeper.serving.stages import admit
from watchkeeper.settings import Route, Settings, Upstream

ONE, TWO = (Release(name="watchkeeper", version=number, template=f"{number}") for number in (1, 2))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "releases").mkdir()
    for release in (ONE, TWO):
        file_of(tmp_path, release.id).write_bytes(msgspec.json.encode(release))
    (tmp_path / FILE_NAME).write_bytes(msgspec.json.encode(ONE))
    (tmp_path / CHALLENGER_FILE).write_bytes(msgspec.json.encode(Challenger(TWO, 0.5)))
    return tmp_path


def settings(data: Path, **more: Any) -> Settings:
    upstream = Upstream(name="first", base_url="http://127.0.0.1:1/v1", model="m")
    return Settings(data=data, upstreams=(upstream,), **more)


def admitted(settings: Settings, *bodies: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each body → the release that serves it, and what the span of admit says."""

    async def run() -> list[tuple[str, dict[str, Any]]]:
        found = []
        async with aiohttp.ClientSession() as session:
            parts = build(settings, session, clock=time.monotonic, rng=random.Random(1))
            for body in bodies:
                request = parse(json.dumps({"messages": [{"role": "user", "content": "Hi"}], **body}).encode())
                journey = Journey(
                    request_id="a" * 32, received_at=1, request=request, release=parts.releases.champion(),
                    clock=time.perf_counter, started=time.perf_counter(),
                )  # fmt: skip
                with journey.step("admit") as span:
                    await admit.STAGE.run(journey, parts, span)
                found.append((journey.release.id, dict(span.attributes)))
            await parts.close()
        return found

    return asyncio.run(run())


def test_the_record_says_by_what_a_release_was_selected(data: Path) -> None:
    named = [{"model": model} for model in (ONE.id, TWO.id, "first")]
    sessions = [{"model": "watchkeeper", "watchkeeper": {"session": f"s{number}"}} for number in range(40)]
    found = admitted(settings(data), *named, *sessions, *sessions)
    assert [(release, said["selected_by"], said.get("share")) for release, said in found[:3]] == [
        (ONE.id, "named", None),
        (TWO.id, "named", None),
        (ONE.id, "named", None),
    ]
    drawn = {(release, said["selected_by"], said["share"]) for release, said in found[3:]}
    assert drawn == {(ONE.id, "champion", 0.5), (TWO.id, "challenger", 0.5)}
    assert found[3:43] == found[43:], "a session stays with its release"
    (data / CHALLENGER_FILE).unlink()
    ((release, said),) = admitted(settings(data), sessions[0])
    assert (release, said["selected_by"], "share" in said) == (ONE.id, "champion", False)


def test_a_route_has_a_release_of_its_own_and_says_when_it_is_not_there(data: Path) -> None:
    routes = (Route(name="help", release=TWO.id), Route(name="old", release="watchkeeper@9"), Route(name="plain"))
    asked = [{"model": "watchkeeper", "watchkeeper": {"route": name, "session": "s0"}} for name in ("help", "old", "none")]
    named = {"model": ONE.id, "watchkeeper": {"route": "help"}}
    plain = {"model": "watchkeeper", "watchkeeper": {"route": "plain", "session": "s0"}}
    helped, old, unknown, other, drawn = admitted(settings(data, routes=routes), *asked, named, plain)
    assert (helped[0], helped[1]["selected_by"], "share" in helped[1]) == (TWO.id, "route", False)
    assert (old[0], old[1]["selected_by"], old[1]["missing"]) == (ONE.id, "champion", "watchkeeper@9")
    assert (other[0], other[1]["selected_by"]) == (ONE.id, "named")
    assert unknown == drawn, "an unknown route, or one that wants no release, is drawn as all are"
    assert "share" in unknown[1]
