"""What upstreams say of themselves, and what we believe of it."""

import pytest

from watchkeeper.serving.wire import _usage


@pytest.mark.parametrize(
    ("said", "counted"),
    [(-7, 0), ("12", 12), ("many", 0), (1e400, 0), (float("nan"), 0), (True, 0), ([1], 0), (10**30, 1 << 40), (3.0, 3)],
)
def test_what_an_upstream_says_it_used_is_a_count_or_nothing(said: object, counted: int) -> None:
    assert _usage({"usage": {"prompt_tokens": said, "completion_tokens": 2}}) == (counted, 2)
