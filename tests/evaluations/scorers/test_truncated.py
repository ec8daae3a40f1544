"""Cut off at its greatest length, by what the upstream says."""

from collections.abc import Callable

import pytest

from watchkeeper_evaluations.scorers.truncated import Truncated


@pytest.mark.parametrize(
    ("answer", "reason", "found"),
    [
        ("Thirty", "length", True),
        ("Thirty days.", "stop", False),
        ("Thirty days.", None, False),
        ("", "length", None),
        ("Thirty days.", "content_filter", None),
    ],
)
def test_truncated(say: Callable[..., object], answer: str, reason: str | None, found: bool | None) -> None:
    assert say(Truncated(), output_text=answer, finish_reason=reason) is found
