"""What people said: rows with the day on which it was said, and the newest first when it is read."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from watchkeeper.feedback import Feedback
from watchkeeper.lake.feedback import feedback_of, feedback_rows
from watchkeeper.lake.lake import Lake

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
AT = int(MIDNIGHT.timestamp()) * 1_000_000


def said(number: int, request: int, **fields: Any) -> Feedback:
    given: dict[str, Any] = {
        "feedback_id": f"{number:032x}",
        "request_id": f"{request:032x}",
        "received_at": AT + number * 1_000_000,
    }
    return Feedback(**(given | fields))


def test_a_row_has_all_that_was_said() -> None:
    score, label = feedback_rows(
        [said(-1, 7, score=0.25), said(1, 7, label="lone \ud800", comment="c", user="u")]
    ).to_pylist()
    assert (score["date"], label["date"]) == (date(2026, 3, 1), date(2026, 3, 2))
    assert label["received_at"] == MIDNIGHT.replace(second=1)
    assert (score["name"], score["score"], score["label"], score["comment"]) == ("feedback", 0.25, None, None)
    assert (label["label"], label["comment"], label["user"], label["score"]) == ("lone \ufffd", "c", "u", None)
    assert feedback_rows([]).num_rows == 0


def test_what_was_said_of_one_answer_comes_newest_first(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert feedback_of(lake, f"{7:032x}") == []
    lake.append("feedback", feedback_rows([said(number, 7 + number % 2, score=0.5) for number in range(6)]))
    assert [row["feedback_id"][-1] for row in feedback_of(lake, f"{7:032x}")] == ["4", "2", "0"]
    assert len(feedback_of(lake, f"{7:032x}", limit=2)) == 2
