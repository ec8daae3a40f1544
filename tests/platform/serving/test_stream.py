"""A streamed answer, however it is cut into pieces: what leaves is what a plain answer would show, or nothing of it."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.encoder.client import EncoderClient, EncoderUnavailable
from watchkeeper.release import BUILTIN, Follower
from watchkeeper.serving.guards.pii import Pii
from watchkeeper.serving.guards.policy import PolicyGuard
from watchkeeper.serving.guards.secrets import Secrets
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.request import ChatRequest
from watchkeeper.serving.stream import Windows
from watchkeeper.serving.wire import Delta
from watchkeeper.settings import Guards, Settings

LEAKY = (
    "Certainly, here is what you asked for. Write to hugo.secret@example.com, or call +44 20 7946 0958 after nine. "
    "The card is 4111 1111 1111 1111 and the key is AKIAIOSFODNN7EXAMPLE. Anything else you would like to know about it?"
)
PLANTED = ("hugo.secret", "7946", "4111 1111", "AKIAIOSF")
DENIED = "That is a fine question. The horoscope for today says that you will meet a stranger. And so on and so forth."


EARLY: dict[str, str] = {}
"""What had left before the end, by request."""


class Away:
    """An encoder that is away: guards that need it say `unknown`, the others go on."""

    async def embed(self, texts: list[str]) -> Any:
        raise EncoderUnavailable("encoder_away")


def stream(pieces: list[str], mode: str = "window") -> tuple[str, Journey]:
    """Sends pieces through; returns what left and the journey."""
    settings = Settings(guards=Guards(streaming=cast(Any, mode)))
    parts = Parts(
        settings=settings,
        releases=Follower(Path("nowhere"), time.monotonic),
        encoder=cast(EncoderClient, Away()),
        knowledge=None,
        sessions=cast(Any, None),
        guards=(Pii(), Secrets(), PolicyGuard({"horoscopes": ("horoscope",)})),
        redact=Redactor(),
        upstreams=cast(Any, None),
        tokens=cast(Any, None),
    )
    ticks = iter(range(1_000_000))
    journey = Journey(
        request_id="0" * 32,
        received_at=0,
        request=ChatRequest(model="watchkeeper", turns=(), stream=True),
        release=BUILTIN,
        clock=lambda: next(ticks) * 0.05,
        started=0.0,
    )

    async def run() -> str:
        windows = Windows(journey, parts, journey.choice)
        for piece in pieces:
            if windows.blocked:
                break
            journey.take(Delta(piece))
            async for _ in windows.receive():
                pass
        EARLY[journey.request_id] = journey.delivered or ""
        async for _ in windows.finish():
            pass
        return journey.delivered or ""

    return asyncio.run(run()), journey


def cut(text: str, places: set[int]) -> list[str]:
    ends = sorted({place % len(text) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(ends)]


@given(st.sets(st.integers(0, 10_000), max_size=60))
def test_however_it_is_cut_personal_data_and_secrets_stay_and_the_rest_arrives(places: set[int]) -> None:
    streamed, _ = stream(cut(LEAKY, places))
    whole, _ = stream([LEAKY])
    assert [text for text in PLANTED if text in streamed] == []
    assert streamed == whole
    assert streamed.startswith("Certainly, here is what you asked for. Write to [EMAIL], or call [PHONE] after nine.")


@given(st.sets(st.integers(0, 10_000), max_size=60))
def test_however_it_is_cut_a_denied_topic_ends_the_answer_before_it(places: set[int]) -> None:
    streamed, journey = stream(cut(DENIED, places))
    assert "horoscope" not in streamed
    assert "stranger" not in streamed
    assert DENIED.startswith(streamed)
    assert journey.finish_reason == "content_filter"
    assert journey.spans["guard_out"].attributes["exposed_chars"] == len(streamed)


def test_prose_does_not_wait_for_the_end() -> None:
    words = [f"word{'y' * (number % 5)} " for number in range(100)]
    streamed, journey = stream(words)
    assert streamed.strip() == "".join(words).strip()
    assert len(EARLY[journey.request_id]) > 300, "what had left before the last piece was judged"


def test_hold_lets_nothing_out_before_all_is_judged() -> None:
    streamed, journey = stream(list(DENIED), mode="hold")
    assert streamed == ""
    assert journey.finish_reason == "content_filter"


def test_audit_never_blocks_and_still_says_what_it_saw() -> None:
    streamed, journey = stream(list(DENIED), mode="audit")
    assert streamed == DENIED
    assert "block" in {verdict.action for verdict in journey.verdicts}


@pytest.mark.parametrize("mode", ["window", "hold", "audit"])
def test_an_empty_answer_is_one(mode: str) -> None:
    assert stream([], mode=mode)[0] == ""
