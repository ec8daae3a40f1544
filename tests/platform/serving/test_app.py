"""The gateway's promise under failures of its own: one record a request, whatever breaks and whenever, and an answer in
OpenAI's shape while there is anyone to answer."""

import asyncio
import json
from typing import Any, cast

import pytest

from watchkeeper.record import Record
from watchkeeper.release import BUILTIN
from watchkeeper.serving.app import Gateway
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.request import Refused
from watchkeeper.settings import Settings
from watchkeeper.telemetry.spool import Spool, SpoolFull


class Kept:
    """A spool that remembers; `full` from the start on."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.records: list[Record] = []

    def accept(self, request_id: str, received_at: int) -> None:
        pass

    async def append(self, record: Record) -> None:
        if self.full:
            raise SpoolFull("the disk is full")
        self.records.append(record)


class Scripted:
    """A loop that streams two pieces, or raises: `refused` before anything has left, `broken` in the middle."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def open(self, journey: Any) -> Any:
        if self.how == "refused":
            raise Refused(400, "content_filter", "blocked")

        async def pieces() -> Any:
            yield "one "
            if self.how == "broken":
                raise ZeroDivisionError
            yield "two"

        return pieces()


def ask(
    how: str = "fine", *, full: bool = False, fail_at: str | None = None, redact: Any = None
) -> tuple[list[Record], list[dict[str, Any]]]:
    """One streamed request. `fail_at`: sending the part that holds this text raises, as when the client is gone."""
    spool = Kept(full)
    parts = Parts(
        settings=Settings(),
        champion=lambda: BUILTIN,
        encoder=cast(Any, None),
        knowledge=None,
        sessions=cast(Any, None),
        guards=(),
        redact=redact or Redactor(),
        upstreams=cast(Any, None),
        tokens=cast(Any, None),
    )
    gateway = Gateway(parts, cast(Spool, spool), "gateway-0")
    gateway.loop = cast(Any, Scripted(how))
    body = json.dumps({"model": "watchkeeper", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
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

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b""}
        await gateway.chat(scope, receive, send)

    asyncio.run(run())
    return spool.records, sent


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
