"""The gateway's promise under failures of its own: one record a request, whatever breaks and whenever, and an answer in
OpenAI's shape while there is anyone to answer."""

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.requests import Request

from watchkeeper.feedback import Feedback
from watchkeeper.record import Record
from watchkeeper.release import Follower
from watchkeeper.serving.access import CALLER
from watchkeeper.serving.app import Gateway
from watchkeeper.serving.choice import Piece
from watchkeeper.serving.connection import PRESENCE, Presence
from watchkeeper.serving.keys import ANYBODY, Keys
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.request import Refused
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.settings import Settings
from watchkeeper.telemetry.spool import Spool, SpoolFull


class Kept:
    """A spool that remembers; `full` from the start on."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.records: list[Record | Feedback] = []

    def accept(self, request_id: str, received_at: int) -> None:
        pass

    async def append(self, record: Record | Feedback) -> None:
        if self.full:
            raise SpoolFull("the disk is full")
        self.records.append(record)


class Scripted:
    """A loop that streams two pieces, or raises: `refused` before anything has left, `broken` in the middle. What was used
    is known when the stream has ended."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def open(self, journey: Any) -> Any:
        if self.how == "refused":
            raise Refused(400, "content_filter", "blocked")

        async def pieces() -> Any:
            try:
                yield Piece(0, "one ")
                if self.how == "broken":
                    raise ZeroDivisionError
                yield Piece(0, "two")
            finally:
                journey.usage = (3, 2)

        return pieces()


def gateway_on(spool: Kept, redact: Any = None) -> Gateway:
    parts = Parts(
        settings=Settings(),
        releases=Follower(Path("nowhere"), time.monotonic),
        encoder=cast(Any, None),
        knowledge=None,
        sessions=cast(Any, None),
        guards=(),
        redact=redact or Redactor(),
        upstreams=Upstreams((), cast(Any, None), clock=time.monotonic, rng=random.Random(1)),
        tokens=cast(Any, None),
    )
    return Gateway(parts, cast(Spool, spool), "gateway-0", Keys(Path("nowhere")))


def ask(
    how: str = "fine", *, full: bool = False, fail_at: str | None = None, redact: Any = None
) -> tuple[list[Record], list[dict[str, Any]]]:
    """One streamed request. `fail_at`: sending the part that holds this text raises, as when the client is gone."""
    spool = Kept(full)
    gateway = gateway_on(spool, redact)
    gateway.loop = cast(Any, Scripted(how))
    body = json.dumps({"model": "watchkeeper", "stream": True, "messages": [{"role": "user", "content": "Hi 5"}]}).encode()
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop()

        async def send(message: Any) -> None:
            if fail_at is not None and fail_at.encode() in message.get("body", b""):
                raise OSError("the client is gone")
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [],
            "query_string": b"",
            "extensions": {PRESENCE: Presence()},
            CALLER: ANYBODY,
        }
        await gateway.chat(scope, receive, send)

    asyncio.run(run())
    return [record for record in spool.records if isinstance(record, Record)], sent


def text(sent: list[dict[str, Any]]) -> str:
    return b"".join(message.get("body", b"") for message in sent).decode()


def test_a_stream_that_goes_well_has_one_record() -> None:
    records, sent = ask()
    assert len(records) == 1
    assert text(sent).endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("fail_at", ['"role":"assistant"', "one ", "[DONE]"])
def test_a_client_that_is_gone_at_any_part_leaves_one_record(fail_at: str) -> None:
    records, _ = ask(fail_at=fail_at)
    assert len(records) == 1


@pytest.mark.parametrize("fail_at", ["one ", "two"])
def test_what_was_used_for_a_client_that_is_gone_is_in_its_record(fail_at: str) -> None:
    records, _ = ask(fail_at=fail_at)
    assert [(record.error, record.output_tokens) for record in records] == [("disconnected", 2)]


def test_a_record_that_cannot_be_made_leaves_one_without_any_text() -> None:
    def breaks(text: str) -> tuple[str, dict[str, int]]:
        raise ZeroDivisionError(text)

    records, sent = ask(redact=breaks)
    assert [(record.error, record.prompt_text, record.prompt) for record in records] == [("record_failed", "", ())]
    assert text(sent).endswith("data: [DONE]\n\n")


def test_a_defect_in_mid_answer_leaves_one_record_and_an_error_event() -> None:
    records, sent = ask("broken")
    assert [record.error for record in records] == ["internal_error"]
    assert "internal_error" in text(sent)
    assert text(sent).endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("how", ["refused", "fine", "broken"])
def test_a_full_spool_is_said_in_openais_shape(how: str) -> None:
    records, sent = ask(how, full=True)
    assert records == []
    assert '"code":"spool_full"' in text(sent)
    if how == "refused":
        assert sent[0]["status"] == 503


def tell(body: bytes, *, full: bool = False, redact: Any = None) -> tuple[list[Any], int, dict[str, Any]]:
    """One feedback: what was kept, and the answer's status and body; it was counted."""
    spool = Kept(full)
    gateway = gateway_on(spool, redact)

    async def run() -> Any:
        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/feedback",
            "headers": [],
            "query_string": b"",
            CALLER: ANYBODY,
        }
        return await gateway.feedback(Request(scope, receive))

    response = asyncio.run(run())
    assert f'watchkeeper_feedback_total{{status="{response.status_code}"}} 1.0' in gateway.metrics.text(0).decode()
    if response.status_code == 503:
        assert int(response.headers["retry-after"]) > 0
    return spool.records, response.status_code, json.loads(response.body)


def test_embeddings_that_break_are_answered_in_openais_shape(caplog: pytest.LogCaptureFixture) -> None:
    class Gone:
        def text(self, text: str) -> int:
            raise OSError(5, f"broken at {text}")

    gateway = gateway_on(Kept(False))
    gateway.parts.tokens = cast(Any, Gone())

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"input": "a secret"}', "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": [], CALLER: ANYBODY}
    response = asyncio.run(gateway.embeddings(Request(scope, receive)))
    assert response.status_code == 500
    assert json.loads(bytes(response.body))["error"]["code"] == "internal_error"
    assert "secret" not in caplog.text


THUMB = {"request_id": "0a" * 16, "score": 1}


def test_feedback_is_kept_redacted_and_answered_with_its_id() -> None:
    mail = "ann.lee@example.com"
    said = THUMB | {"comment": f"Write to {mail}", "user": mail, "request_id": "tr-" + "0A" * 16}
    (kept,), status, body = tell(json.dumps(said).encode())
    assert status == 200
    assert body == {"id": kept.feedback_id, "request_id": "0a" * 16}
    assert (kept.request_id, kept.score, kept.comment) == ("0a" * 16, 1.0, "Write to [EMAIL]")
    assert (kept.user or "").startswith("[EMAIL:")


def test_feedback_that_is_no_good_or_too_long_is_refused_in_openais_shape() -> None:
    kept, status, body = tell(json.dumps(THUMB | {"score": 2}).encode())
    assert (kept, status) == ([], 400)
    assert (body["error"]["param"], body["error"]["type"]) == ("score", "invalid_request_error")
    kept, status, body = tell(b" " * 70_000)
    assert (kept, status, body["error"]["code"]) == ([], 413, "request_too_large")


def test_feedback_that_cannot_be_kept_is_to_be_sent_again() -> None:
    kept, status, body = tell(json.dumps(THUMB).encode(), full=True)
    assert (kept, status, body["error"]["code"]) == ([], 503, "spool_full")


def test_feedback_that_cannot_be_redacted_is_not_kept_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def breaks(text: str) -> tuple[str, dict[str, int]]:
        raise ZeroDivisionError(text)

    kept, status, body = tell(json.dumps(THUMB | {"comment": "a secret"}).encode(), redact=breaks)
    assert (kept, status, body["error"]["code"]) == ([], 500, "internal_error")
    assert "ZeroDivisionError" in caplog.text
    assert "a secret" not in caplog.text
