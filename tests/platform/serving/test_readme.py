"""The README's example of a stage, as it stands there: one file and one line, and its span is wherever spans are."""

import asyncio
import importlib.util
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest

from watchkeeper import serving
from watchkeeper.lake.rollup import roll_up
from watchkeeper.record import STAGES, Record, decode, encode
from watchkeeper.serving import loop
from watchkeeper.serving.building import build
from watchkeeper.serving.failure import freeze, refuse
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.request import parse
from watchkeeper.serving.stages.stage import Stage
from watchkeeper.settings import Settings, Stages, Upstream
from watchkeeper.telemetry.otlp import export_request

README = Path(serving.__file__ or "").with_name("README.md").read_text(encoding="utf-8")


@pytest.fixture
def example(tmp_path: Path) -> tuple[ModuleType, str]:
    """The README's file as a module, and its one line."""
    code, line = re.findall(r"```python\n(.*?)```", README, re.S)
    file = tmp_path / "capitals.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("capitals", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, line


def travelled(data: Path, upstream: str, prompt: str) -> Record:
    """One request through the loop."""

    async def run() -> Record:
        settings = Settings(
            data=data,
            stages=Stages(embed=False, ground=False, guard_in=False, guard_out=False),
            upstreams=(Upstream(name="scripted", base_url=upstream, model="scripted"),),
        )
        body = {"model": "watchkeeper", "messages": [{"role": "user", "content": prompt}]}
        request = parse(json.dumps(body).encode())
        async with aiohttp.ClientSession() as session:
            parts = build(settings, session, clock=time.monotonic, rng=random.Random(1))
            journey = Journey(
                request_id="a" * 32, received_at=1_790_000_000_000_000, request=request, release=parts.releases.champion(),
                clock=time.perf_counter, started=time.perf_counter(), turns=list(request.turns),
            )  # fmt: skip
            try:
                await loop.Loop(parts).answer(journey)
            except Exception as error:
                refuse(journey, error)
            await parts.close()
        return freeze(journey, parts.redact)

    return asyncio.run(run())


def test_a_stage_is_one_file_and_one_line(
    example: tuple[ModuleType, str], tmp_path: Path, upstreams: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    capitals, line = example
    names: dict[str, Any] = {**vars(loop), "capitals": capitals}
    exec(line, names)
    assert tuple(stage for stage in names["BEFORE"] if stage.name != "capitals") == loop.BEFORE, (
        "the README's order is ours"
    )
    monkeypatch.setattr(loop, "BEFORE", names["BEFORE"])
    upstream = upstreams().url

    record = travelled(tmp_path, upstream, "HELLO there")
    assert record.error is None
    (stage,) = [stage for stage in record.stages if stage.name == "capitals"]
    assert (stage.status, stage.attributes) == ("ok", {"share": 0.5})
    assert decode(encode(record)) == record
    assert b"capitals" in export_request([record])
    assert "capitals" in roll_up([record]).column("part").to_pylist()
    metrics = Metrics()
    metrics.count(record)
    assert b'watchkeeper_stage_seconds_count{stage="capitals"} 1.0' in metrics.text(0)

    refused = travelled(tmp_path, upstream, "WILL YOU PLEASE LISTEN TO ME NOW")
    assert (refused.status, refused.error, refused.attempts) == (400, "shouting", 0)


def test_the_loop_has_the_stages_of_the_record_in_their_order() -> None:
    order = dict.fromkeys(stage.name for stage in (*loop.BEFORE, *loop.AFTER))  # check has a last word
    assert tuple(order) == tuple(name for name in STAGES if name != "generate")
    assert " ▸ ".join(STAGES) in README
    assert " ▸ ".join(STAGES) in (loop.__doc__ or "")


def test_a_stage_has_a_word_for_a_name() -> None:
    """Whatever reads records holds it to that."""
    for name in ("Capitals", "my stage", "", "jane@example.com"):
        with pytest.raises(ValueError, match="a stage's name is a word"):
            Stage(name, loop.BEFORE[0].run)
