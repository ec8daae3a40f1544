"""Feedback: kept as it is, and nothing else taken for it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.feedback import Feedback, decode, encode
from watchkeeper.record import Record
from watchkeeper.record import encode as encode_record

words = st.none() | st.text()


@given(
    st.builds(
        Feedback,
        feedback_id=st.uuids().map(lambda uuid: uuid.hex),
        request_id=st.uuids().map(lambda uuid: uuid.hex),
        received_at=st.integers(0, 4_000_000_000_000_000),
        score=st.none() | st.floats(0, 1),
        label=words,
        comment=words,
        user=words,
    )
)
def test_it_comes_back_as_it_was(feedback: Feedback) -> None:
    assert decode(encode(feedback)) == feedback


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", encode_record(Record(request_id="0" * 32, received_at=1))])
def test_what_is_no_feedback_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(body)
