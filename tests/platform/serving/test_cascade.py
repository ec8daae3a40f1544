"""The cascade through the real loop, with two real upstreams: who answers, what is paid, and what the record says."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
import pytest

from watchkeeper.record import Record
from watchkeeper.serving.building import build
from watchkeeper.serving.calibration import FILE_NAME, Calibration, decide
from watchkeeper.serving.difficulty import COUNTED, Difficulty
from watchkeeper.serving.failure import freeze, refuse
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.loop import Loop
from watchkeeper.serving.request import parse
from watchkeeper.settings import Cascade, Price, Route, Settings, Stages, Upstream

EASY = "Write a short poem about the sea."
HARD = "If x + y = 12 and x * y = 35, what is the value of x - y? Calculate it."
POEM = ["The sea is wide, ", "the sea is blue."]
CASCADE = Cascade(small=("small",), large=("large",))


@pytest.fixture
def world(tmp_path: Path, upstreams: Callable[[], Any]) -> SimpleNamespace:
    """Two upstreams. `ask` sends one request through the loop → its record, and the
    journey."""
    small, large = upstreams(), upstreams()
    small.say, large.say = (lambda messages: POEM), (lambda messages: ["A better ", "poem ", "about the sea."])

    def settings(**more: Any) -> Settings:
        price = Price(input=1.0, output=2.0)
        return Settings(
            data=tmp_path / "data",
            stages=Stages(embed=False, ground=False, guard_in=False, guard_out=False),
            upstreams=(
                Upstream(name="small", base_url=small.url, model="s", price=price),
                Upstream(name="large", base_url=large.url, model="l", price=Price(input=100.0, output=200.0)),
            ),
            **({"cascade": CASCADE} | more),
        )

    def ask(prompt: str, *, stream: bool = False, with_settings: Settings | None = None, **more: Any) -> Record:
        body = {"model": "watchkeeper", "messages": [{"role": "user", "content": prompt}], "stream": stream, **more}
        return asyncio.run(travel(with_settings or settings(), parse(json.dumps(body).encode())))

    async def travel(chosen: Settings, request: Any) -> Record:
        async with aiohttp.ClientSession() as session:
            parts = build(chosen, session, clock=time.monotonic, rng=random.Random(1))
            journey = Journey(
                request_id="a" * 32, received_at=1, request=request, release=parts.releases.champion(),
                clock=time.perf_counter, started=time.perf_counter(), turns=list(request.turns),
            )  # fmt: skip
            try:
                if request.stream:
                    async for _ in await Loop(parts).open(journey):
                        pass
                else:
                    await Loop(parts).answer(journey)
            except Exception as error:
                refuse(journey, error)
            await parts.close()
        return freeze(journey, parts.redact)

    return SimpleNamespace(small=small, large=large, ask=ask, settings=settings, data=tmp_path / "data")


def told(record: Record) -> dict[str, Any]:
    (route,) = [stage for stage in record.stages if stage.name == "route"]
    return dict(route.attributes)


def calls(world: SimpleNamespace) -> tuple[int, int]:
    return len(world.small.bodies), len(world.large.bodies)


@pytest.mark.parametrize("stream", [False, True])
def test_an_easy_prompt_stays_with_the_small_model_and_a_hard_one_does_not(world: SimpleNamespace, stream: bool) -> None:
    easy = world.ask(EASY, stream=stream)
    assert (easy.upstream, easy.output_text, calls(world)) == ("small", "".join(POEM), (1, 0))
    assert easy.cost_usd == pytest.approx((10 * 1 + 2 * 2) / 1e6)
    said = told(easy)
    assert (said["cascade"], said["policy"], said["threshold"], said["threshold_by"]) == (
        "small",
        "cascade",
        0.3,
        "default",
    )
    assert 0 < said["difficulty"] < 0.3
    assert said["difficulty_by"] == COUNTED, "no encoder runs here"
    hard = world.ask(HARD, stream=stream)
    assert (hard.upstream, calls(world)) == ("large", (1, 1))
    assert told(hard)["cascade"] == "large"
    assert told(hard)["difficulty"] >= 0.3


@pytest.mark.parametrize(
    ("says", "weakness", "more"),
    [
        ([" \n"], "empty", {}),
        (["I'm sorry, ", "but I don't know."], "refusal", {}),
        (["The sea is deep and wide. "] * 5, "repetition", {}),
        (["Not ", "JSON."], "json", {"response_format": {"type": "json_object"}}),
    ],
)
def test_a_weak_answer_is_thrown_away_paid_for_and_told(
    world: SimpleNamespace, says: list[str], weakness: str, more: dict[str, Any]
) -> None:
    better = ["{", "", "}"] if more else ["A better ", "poem ", "about the sea."]
    world.small.say, world.large.say = (lambda messages: says), (lambda messages: better)
    record = world.ask(EASY, **more)
    assert (record.upstream, record.output_text) == ("large", "{}" if more else "A better poem about the sea.")
    assert (record.attempts, calls(world)) == (2, (1, 1))
    said = told(record)
    assert (said["cascade"], said["weakness"]) == ("escalated", weakness)
    assert (said["small_input_tokens"], said["small_output_tokens"]) == (10, len(says))
    assert (record.input_tokens, record.output_tokens) == (20, len(says) + 3), "all that was used"
    assert record.cost_usd == pytest.approx((10 + 2 * len(says) + 10 * 100 + 3 * 200) / 1e6)
    streamed = world.ask(EASY, stream=True, **more)
    assert (streamed.upstream, told(streamed)["cascade"]) == ("small", "small"), "a stream leaves as it comes"


def test_a_good_answer_in_json_is_good_enough(world: SimpleNamespace) -> None:
    world.small.say = lambda messages: ['{"sea": ', '"blue"}']
    assert world.ask(EASY, response_format={"type": "json_object"}).upstream == "small"


def test_only_the_signals_that_are_set_count(world: SimpleNamespace) -> None:
    world.small.say = lambda messages: ["I don't know."]
    quiet = world.settings(cascade=Cascade(small=("small",), large=("large",), signals=("empty",)))
    assert world.ask(EASY, with_settings=quiet).upstream == "small"


def test_when_the_large_model_is_away_a_weak_answer_is_better_than_none(world: SimpleNamespace) -> None:
    world.small.say = lambda messages: ["I don't know."]
    world.large.status = 500
    record = world.ask(EASY)
    assert (record.error, record.upstream, record.output_text) == (None, "small", "I don't know.")
    assert (told(record)["cascade"], told(record)["not_escalated"]) == ("small", "upstream_error")
    assert record.cost_usd == pytest.approx(12 / 1e6)
    hard = world.ask(HARD)
    assert (hard.error, hard.upstream) == (None, "small"), "and where the large one should have answered at once"
    world.small.status = 500
    assert world.ask(EASY).status == 502


def test_when_the_small_model_is_away_the_large_one_answers_and_is_not_judged(world: SimpleNamespace) -> None:
    world.small.status = 500
    world.large.say = lambda messages: ["I don't know."]
    record = world.ask(EASY)
    assert (record.error, record.upstream, record.output_text) == (None, "large", "I don't know.")
    assert "weakness" not in told(record)


def test_who_names_a_model_has_no_cascade(world: SimpleNamespace) -> None:
    record = world.ask(HARD, model="small")
    assert (record.upstream, "cascade" in told(record)) == ("small", False)


def test_a_route_has_its_own_cascade_or_none(world: SimpleNamespace) -> None:
    chosen = world.settings(
        cascade=None,
        routes=(
            Route(name="own", cascade=Cascade(small=("large",), large=("small",), difficulty=1.0)),
            Route(name="plain", upstreams=("large",)),
        ),
    )
    own = world.ask(HARD, with_settings=chosen, watchkeeper={"route": "own"})
    assert (own.upstream, told(own)["threshold_by"]) == ("large", "setting")
    assert "cascade" not in told(world.ask(HARD, with_settings=chosen, watchkeeper={"route": "plain"}))
    assert "cascade" not in told(world.ask(HARD, with_settings=chosen, watchkeeper={"route": "other"}))
    everywhere = world.settings(routes=(Route(name="plain", upstreams=("large",)),))
    plain = world.ask(EASY, with_settings=everywhere, watchkeeper={"route": "plain"})
    assert (plain.upstream, "cascade" in told(plain)) == ("large", False)


def test_a_calibration_sets_the_threshold_of_its_two_models(world: SimpleNamespace) -> None:
    made = Calibration(
        small="small", large="large", difficulty=0.99, by=COUNTED, score="reference_similarity", loss=0.05, n=100,
        clusters=90, expected_loss=0.01, small_share=1.0, cost_share=0.1, experiment_id="e",
        calibrated_at=datetime(2026, 5, 29, tzinfo=UTC),
    )  # fmt: skip
    world.data.mkdir()
    (world.data / FILE_NAME).write_bytes(msgspec.json.encode([made]))
    record = world.ask(HARD)
    assert (record.upstream, told(record)["threshold"], told(record)["threshold_by"]) == ("small", 0.99, "calibration")
    for other in (msgspec.structs.replace(made, large="other"), msgspec.structs.replace(made, by="counted-0")):
        assert decide(CASCADE, Difficulty(0.5, COUNTED), [other]).by == "default"
    lower = msgspec.structs.replace(made, difficulty=0.2)
    assert decide(CASCADE, Difficulty(0.5, COUNTED), [made, lower]).threshold == 0.2
    assert decide(CASCADE.model_copy(update={"difficulty": 0.7}), Difficulty(0.5, COUNTED), [made]).by == "setting"
