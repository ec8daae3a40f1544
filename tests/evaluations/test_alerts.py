"""Alerts: what a sequence of verdicts turns, once each; and a webhook that is away at first."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.lake.alerts import alert_row, last_turn, open_alerts, silence
from watchkeeper.lake.interactions import evaluation_row
from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Alerts, Settings
from watchkeeper_evaluations.alerts import Judged, body, look, tell, turn
from watchkeeper_evaluations.case import Verdict
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
VERDICTS = st.sampled_from(["pass", "warn", "fail", "unknown"])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def judged(number: int, verdict: Verdict, again: str = "", job: str = "drift") -> Judged:
    return Judged(
        job=job,
        evaluation_id=f"{job}-{number}{again}",
        window=Window(NOON + number * HOUR, NOON + (number + 1) * HOUR),
        verdict=verdict,
        reason=f"window {number}",
        metrics={"n": 1.0},
        mlflow_run_id=f"run-{number}",
        run_url=f"http://mlflow/{number}",
    )


def record(lake: Lake, done: Judged) -> None:
    """The evaluation's row, which comes after the alert."""
    row = evaluation_row(
        evaluation_id=done.evaluation_id, job=done.job, evaluated_at=done.window.end, window_start=done.window.start,
        window_end=done.window.end, lake_version=1, n=1, verdict=done.verdict, metrics={},
    )  # fmt: skip
    lake.append("evaluations", row)


def evaluated(lake: Lake, done: Judged) -> bool:
    turned = look(lake, done, done.window.end)
    record(lake, done)
    return turned


def events(lake: Lake) -> list[tuple[str, str]]:
    rows = lake.query("""SELECT event, reason FROM alerts WHERE event <> 'notified' ORDER BY "at" """).to_pylist()
    return [(row["event"], row["reason"]) for row in rows]


@given(verdicts=st.lists(VERDICTS, max_size=7))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_sequence_of_verdicts_fires_and_resolves_in_turn(
    verdicts: list[Verdict], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for number, verdict in enumerate(verdicts):
        evaluated(lake, judged(number, verdict))
    # What should have come of it, said another way: of the known verdicts, neighbours that differ in being a fail.
    known = [(number, verdict == "fail") for number, verdict in enumerate(verdicts) if verdict != "unknown"]
    before = [(-1, False), *known]
    turns = [(number, fails) for (_, was), (number, fails) in zip(before, known, strict=False) if fails != was]
    assert events(lake) == [("fired" if fails else "resolved", f"window {number}") for number, fails in turns]
    ids = lake.query("""SELECT alert_id, event FROM alerts ORDER BY "at" """).to_pylist()
    for fired, resolved in zip(ids[::2], ids[1::2], strict=False):
        assert fired["alert_id"] == resolved["alert_id"]
    assert len({row["alert_id"] for row in ids}) == len(ids[::2])


@pytest.mark.parametrize("verdict", ["pass", "warn", "fail", "unknown"])
@pytest.mark.parametrize("is_open", [True, False])
def test_nothing_turns_twice(verdict: Verdict, is_open: bool) -> None:
    event = turn(is_open, verdict)
    if event is not None:
        assert turn(event == "fired", verdict) is None


def test_a_crash_before_the_evaluations_row_fires_once(lake: Lake) -> None:
    assert look(lake, judged(0, "fail"), NOON)
    assert not evaluated(lake, judged(0, "fail"))
    assert events(lake) == [("fired", "window 0")]


def test_an_older_window_changes_nothing(lake: Lake) -> None:
    evaluated(lake, judged(1, "fail"))
    evaluated(lake, judged(3, "fail"))
    assert not evaluated(lake, judged(2, "pass"))
    assert evaluated(lake, judged(3, "pass", again="b"))
    # Nor while the row of the newest is not there yet.
    assert not evaluated(lake, judged(2, "fail", again="b"))
    assert events(lake) == [("fired", "window 1"), ("resolved", "window 3")]


def test_jobs_do_not_know_each_other(lake: Lake) -> None:
    evaluated(lake, judged(5, "fail"))
    evaluated(lake, judged(4, "fail", job="toxicity"))
    evaluated(lake, judged(6, "pass"))
    assert open_alerts(lake).column("job").to_pylist() == ["toxicity"]


def test_of_evaluations_at_the_same_time_one_fires(lake: Lake) -> None:
    def one(number: int) -> None:
        look(Lake(lake.uri), judged(number, "fail"), NOON)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events(lake)) == 1


def test_turns_are_in_order_whatever_the_clock_says(lake: Lake) -> None:
    look(lake, judged(1, "fail"), NOON)
    look(lake, judged(2, "pass"), NOON - HOUR)
    last = last_turn(lake, "drift")
    assert last is not None
    assert (last["event"], last["at"]) == ("resolved", NOON + timedelta(microseconds=1))


@dataclass
class Hook:
    """A webhook on a thread. `statuses`: what it answers, in turn; then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    hang_s: float = 0.0
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook, done = Hook(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:
            posted = json.loads(self.rfile.read(int(self.headers["content-length"])))
            hook.got.append((self.headers["idempotency-key"], posted))
            done.wait(hook.hang_s)
            self.send_response(hook.statuses.pop(0) if hook.statuses else 200)
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield hook
    done.set()
    server.shutdown()
    server.server_close()


def told_by(lake: Lake, url: str | None) -> Callable[..., str | None]:
    made = Settings(alerts=Alerts(webhook=url, timeout="1s"))
    return lambda at=NOON + 2 * HOUR: tell(made, lake, at)


def test_the_webhook_gets_each_event_until_it_takes_it(lake: Lake, hook: Hook) -> None:
    say = told_by(lake, hook.url)
    evaluated(lake, judged(0, "fail"))
    hook.statuses = [500, 302]
    assert "HTTP 500" in str(say())
    assert "HTTP 302" in str(say())
    evaluated(lake, judged(1, "warn"))
    assert say() is None
    assert say() is None
    fired, resolved = "fired", "resolved"
    assert [posted["event"] for _, posted in hook.got] == [fired, fired, fired, resolved]
    keys = [key for key, _ in hook.got]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    first = hook.got[0][1]
    assert first.pop("alert_id") in keys[0]
    assert first == {
        "event": "fired", "job": "drift", "verdict": "fail", "reason": "window 0", "evaluation_id": "drift-0",
        "window": {"start": "2026-04-01T12:00:00Z", "end": "2026-04-01T13:00:00Z"}, "run_url": "http://mlflow/0",
        "at": "2026-04-01T13:00:00Z",
    }  # fmt: skip


def test_what_does_not_answer_holds_nothing_up_for_long(lake: Lake, hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    evaluated(lake, judged(0, "fail"))
    hook.hang_s = 30
    began = datetime.now(UTC)
    assert "ReadTimeout" in str(told_by(lake, hook.url)())
    assert datetime.now(UTC) - began < timedelta(seconds=10)
    assert told_by(lake, "http://127.0.0.1:9/")() is not None
    assert [len(record.getMessage().splitlines()) for record in caplog.records] == [1, 1]


def test_a_webhooks_url_is_a_key_and_stays_secret(lake: Lake, hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    """Many services take whoever knows the path for the owner."""
    evaluated(lake, judged(0, "fail"))
    hook.statuses = [403]
    path = "services/T000/SECRET?token=SECRET"
    port = hook.url.split(":")[-1].split("/")[0]
    refused = told_by(lake, f"http://user:SECRET@127.0.0.1:{port}/{path}")()
    away = told_by(lake, f"http://127.0.0.1:9/{path}")()
    assert refused == "the webhook was not told: HTTP 403 from 127.0.0.1"
    assert away == "the webhook was not told: ConnectionError from 127.0.0.1"
    assert "SECRET" not in caplog.text


def test_old_news_silenced_alerts_and_no_webhook(lake: Lake, hook: Hook) -> None:
    evaluated(lake, judged(0, "fail"))
    assert told_by(lake, None)() is None
    assert told_by(lake, hook.url)(NOON + timedelta(days=8)) is None
    silence(lake, open_alerts(lake).column("alert_id")[0].as_py(), "ada", NOON)
    assert told_by(lake, hook.url)() is None
    assert hook.got == []


def test_a_body_needs_nothing_but_its_row() -> None:
    row = alert_row(
        alert_id="a", event="fired", at=NOON, job="drift", evaluation_id="e", window_start=NOON, window_end=NOON + HOUR,
        verdict="fail", reason="r", evidence={"run_url": "u"},
    )  # fmt: skip
    assert body(row.to_pylist()[0])["run_url"] == "u"
