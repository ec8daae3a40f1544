"""The feedback card: what was said is shown, what the reader says reaches the gateway, and nobody else may say it."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from watchkeeper.feedback import Feedback, decode
from watchkeeper.lake.feedback import feedback_rows
from watchkeeper.settings import Dashboard, Gateway
from watchkeeper.telemetry.segment import segments
from watchkeeper_dashboards.feedback import send

AT = 1_767_970_000_000_000
EVIL = "<img src=x onerror=alert(1)>"


def said(request_id: str, number: int, **fields: Any) -> Feedback:
    return Feedback(feedback_id=f"{number:032x}", request_id=request_id, received_at=AT + number * 60_000_000, **fields)


@pytest.fixture
def full(make_house: Any, traffic: Any) -> Any:
    """A house with some feedback on its first request."""
    house = make_house(traffic(2, 5))
    name = house.records[0].request_id
    some = [
        said(name, 1, score=1.0, comment="clear", user="ann"),
        said(name, 2, score=0.0, comment=EVIL),
        said(name, 3, label="wrong year", name="facts"),
        said(name, 4, score=0.25),
        said(house.records[1].request_id, 5, score=1.0, comment="of another answer"),
    ]
    house.lake.append("feedback", feedback_rows(some))
    return house


def given(reader: Any, request_id: str, sent: Any = None) -> Any:
    answer = reader.fire("feedback-given.children", trace_id_data=request_id, feedback_sent_data=sent)
    return answer["response"]["feedback-given"]["children"]


def test_what_was_said_is_shown_newest_first_as_text(full: Any, reader_of: Any, read: Any) -> None:
    name = full.records[0].request_id
    for written in (name, f"tr-{name.upper()}"):
        page = given(reader_of(full), written)
        words = [word.strip() for word in read(page)]
        shown = [word for word in words if word in ("Good", "Bad", "wrong year", "0.25", "clear", EVIL, "ann", "facts")]
        assert shown == ["0.25", "wrong year", "facts", "Bad", EVIL, "Good", "clear", "ann"]
        assert "of another answer" not in words
        assert "wk-icon-thumb-down" in json.dumps(page)


def test_without_any_it_says_so(house: Any, reader_of: Any, read: Any) -> None:
    assert "Nobody has said anything yet." in read(given(reader_of(house), house.records[0].request_id))


def test_the_readers_own_is_announced_until_it_is_there(full: Any, reader_of: Any, read: Any) -> None:
    reader, name = reader_of(full), full.records[0].request_id
    announced = "Recorded; it appears here within seconds."
    assert announced in read(given(reader, name, {"id": "f" * 32}))
    assert announced not in read(given(reader, name, {"id": f"{4:032x}"}))
    assert "it broke" in read(given(reader, name, {"error": "it broke"}))


@pytest.fixture
def served(
    full: Any, free_port: Callable[[], int], run_process: Callable[..., Any], watchkeeper: list[str]
) -> Callable[..., Any]:
    """A function: starts a real gateway on the house's folder, and gives the house whose settings name it."""

    def start(**dashboard: Any) -> Any:
        gateway = Gateway(port=free_port())
        env = {"WATCHKEEPER_DATA": str(full.settings.data), "WATCHKEEPER_GATEWAY__PORT": str(gateway.port)}
        run_process([*watchkeeper, "serve"], ready=f"{gateway.url}/health/live", env=env)
        changes = {"gateway": gateway, "dashboard": Dashboard(**dashboard)}
        return dataclasses.replace(full, settings=full.settings.model_copy(update=changes))

    return start


def spooled(house: Any) -> list[Feedback]:
    rows = [row for segment in segments(house.settings.spool_folder).segments for row in segment.rows(0)]
    return [decode(row.body) for row in rows]


def press(house: Any, which: str, comment: str | None = None) -> dict[str, Any]:
    values = {"feedback_up_n_clicks": 1, "feedback_down_n_clicks": 1, "feedback_comment_value": comment}
    return {"trace_id_data": house.records[0].request_id, "changed": f"feedback-{which}.n_clicks", **values}


@pytest.mark.servers
def test_a_thumb_reaches_the_gateway_with_its_comment_redacted(served: Any, reader_of: Any) -> None:
    house = served()
    reader = reader_of(house)
    up = reader.fire("feedback-sent.data", **press(house, "up"))["response"]
    down = reader.fire("feedback-sent.data", **press(house, "down", "ask bob@example.com"))["response"]
    first, second = spooled(house)
    assert (first.request_id, first.score, first.comment) == (house.records[0].request_id, 1.0, None)
    assert (second.score, second.comment) == (0.0, "ask [EMAIL]")
    assert [answer["feedback-sent"]["data"] for answer in (up, down)] == [
        {"id": first.feedback_id},
        {"id": second.feedback_id},
    ]
    assert down["feedback-comment"]["value"] == ""


@pytest.mark.servers
def test_strangers_and_other_origins_say_nothing(served: Any, reader_of: Any) -> None:
    house = served()
    reader = reader_of(house)
    body = reader.body("feedback-sent.data", **press(house, "up"))
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "rebound.example"}):
        assert reader.http.post("/_dash-update-component", json=body, headers=headers).status_code == 403
    assert spooled(house) == []


@pytest.mark.servers
def test_a_dashboard_that_is_open_to_others_takes_no_feedback(served: Any, reader_of: Any, read: Any) -> None:
    house = served(host="0.0.0.0")
    reader, name = reader_of(house), house.records[0].request_id
    page = reader.fire("page.children", url_pathname=f"/traces/{name}")["response"]["page"]["children"]
    assert "feedback-up" not in json.dumps(page)
    assert "Feedback is given here only on loopback" in " ".join(read(page))
    sent = reader.fire("feedback-sent.data", **press(house, "up"))["response"]["feedback-sent"]["data"]
    assert sent["error"].startswith("This was not recorded")
    assert spooled(house) == []
    assert "clear" in read(given(reader, name)), "what was said is shown all the same"


def test_what_goes_wrong_is_one_line(full: Any, free_port: Callable[[], int], upstreams: Callable[[], Any]) -> None:
    other = upstreams()
    other.status = 404
    for port, expected in (
        (free_port(), "does not answer at http://127.0.0.1"),
        (int(other.url.split(":")[2].split("/")[0]), "did not record it: told to refuse"),
    ):
        settings = full.settings.model_copy(update={"gateway": Gateway(port=port)})
        error = send(settings, full.records[0].request_id, 1.0, None)["error"]
        assert expected in error
        assert "\n" not in error


def test_what_is_no_request_gets_no_card(house: Any, reader_of: Any) -> None:
    page = reader_of(house).fire("page.children", url_pathname="/traces/nonsense")["response"]["page"]["children"]
    assert "feedback" not in json.dumps(page)
