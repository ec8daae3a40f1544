"""What upstreams say of themselves, and what we believe of it."""

import pytest

from watchkeeper.serving.wire import UpstreamFailed, _chunk, _usage, completion, refusal
from watchkeeper.settings import Upstream

UPSTREAM = Upstream(name="one", base_url="http://127.0.0.1:9/v1", model="m")


@pytest.mark.parametrize(
    ("said", "counted"),
    [(-7, 0), ("12", 12), ("many", 0), (1e400, 0), (float("nan"), 0), (True, 0), ([1], 0), (10**30, 1 << 40), (3.0, 3)],
)
def test_what_an_upstream_says_it_used_is_a_count_or_nothing(said: object, counted: int) -> None:
    assert _usage({"usage": {"prompt_tokens": said, "completion_tokens": 2}}) == (counted, 2)


def test_a_refusal_keeps_its_code_and_the_parameter_that_it_names() -> None:
    body = b'{"error": {"message": "too hot", "type": "x", "code": "invalid_value", "param": "temperature"}}'
    failed = refusal(UPSTREAM, 400, body, None)
    assert (failed.status, failed.code, failed.message, failed.param) == (400, "invalid_value", "too hot", "temperature")
    assert not failed.retryable


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"error": "no"}', b'{"error": {"param": 7, "code": "a text of somebody\'s"}}']
)
def test_a_refusal_in_no_shape_is_one_all_the_same(body: bytes) -> None:
    failed = refusal(UPSTREAM, 422, body, None)
    assert (failed.status, failed.code, failed.param) == (422, "upstream_error", None)


@pytest.mark.parametrize("status", [401, 403])
def test_what_an_upstream_says_of_our_key_is_not_passed_on(status: int) -> None:
    body = b'{"error": {"message": "Incorrect API key provided: sk-our-own-1234", "code": "invalid_api_key"}}'
    failed = refusal(UPSTREAM, status, body, None)
    assert (failed.status, failed.code, failed.retryable) == (502, "upstream_error", True)
    assert "sk-our" not in failed.message


@pytest.mark.parametrize(
    "said", [b'[{"message": {"content": "\xf0\x9f"}}]', b"[" * 5_000 + b"]" * 5_000], ids=["half a character", "too deep"]
)
def test_what_cannot_be_read_is_the_upstreams_failure_and_another_one_may_do_better(said: bytes) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        completion(UPSTREAM, b'{"choices": ' + said + b"}")
    assert failed.value.retryable
    with pytest.raises(UpstreamFailed):
        _chunk(UPSTREAM, b'{"choices": ' + said.replace(b"message", b"delta") + b"}")
    assert refusal(UPSTREAM, 500, said, None).status == 502


def test_a_time_to_come_back_that_is_none_is_a_second() -> None:
    assert refusal(UPSTREAM, 429, b"", "\xb2").retry_after == 1


def test_every_choice_of_an_answer_is_read() -> None:
    body = (
        b'{"model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 2}, "choices": ['
        b'{"index": 1, "message": {"content": null, "tool_calls": [{"id": "c"}]}, "finish_reason": "tool_calls"},'
        b'{"message": {"content": "b"}, "logprobs": {"content": [{"token": "b"}, 7]}}]}'
    )
    calls, text = completion(UPSTREAM, body)
    assert (calls.index, calls.text, calls.extra, calls.usage) == (1, "", {"tool_calls": [{"id": "c"}]}, (1, 2))
    assert (text.index, text.text, text.logprobs) == (1, "b", [{"token": "b"}])


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"choices": []}', b'{"choices": [{}]}', b'{"choices": [{"message": {"content": 7}}]}']
)
def test_what_is_no_answer_is_a_failure_that_another_may_mend(body: bytes) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        completion(UPSTREAM, body)
    assert failed.value.retryable


@pytest.mark.parametrize(
    ("status", "said", "kept"),
    [(429, "7", 7), (503, "7", 7), (429, None, 1), (503, None, None), (503, "Wed, 21 Oct 2026 07:28:00 GMT", None),
     (429, "\u00b2", 1), (503, "9" * 5_000, None), (429, "-3", 1)],
)  # fmt: skip
def test_when_to_come_back_is_a_number_of_seconds_or_nothing(status: int, said: str | None, kept: int | None) -> None:
    assert refusal(UPSTREAM, status, b"{}", said).retry_after == kept
