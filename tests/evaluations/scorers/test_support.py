"""Support is what the gateway's check found, of answers that somebody saw."""

from collections.abc import Callable

import pytest

from watchkeeper_evaluations.scorers.support import Support


@pytest.mark.parametrize(
    ("support", "answer", "reason", "found"),
    [
        (0.75, "Thirty days.", "stop", 0.75),
        (0.0, "Thirty days.", "stop", 0.0),
        (None, "Hello.", "stop", None),
        (0.75, "Thirty days.", "content_filter", None),
        (0.75, "", "error", None),
    ],
)
def test_support(say: Callable[..., object], support: float | None, answer: str, reason: str, found: float | None) -> None:
    assert say(Support(), support=support, output_text=answer, finish_reason=reason) == found
