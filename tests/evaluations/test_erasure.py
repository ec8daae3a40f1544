"""An erasure is one thing: cut off anywhere, or with a store away, the next one finishes it; and it names what is left.
Here without MLflow; the whole way is in `tests/journey/test_erase.py`."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from watchkeeper import feedback
from watchkeeper.carrying import carrying
from watchkeeper.feedback import Feedback
from watchkeeper.lake.feedback import feedback_rows
from watchkeeper.lake.interactions import evaluation_row, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record, encode
from watchkeeper.serving.cache import AnswerCache, Entry, Keys
from watchkeeper.serving.labels import Labels
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.sessions import Sessions
from watchkeeper.serving.wire import Delta
from watchkeeper.settings import Collector, Mlflow, Settings
from watchkeeper.telemetry.dead_letters import DeadLetter, DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.segment import FEEDBACK, RECORD
from watchkeeper.telemetry.spool import Spool
from watchkeeper_evaluations.drift import without_words
from watchkeeper_evaluations.erasure import Asked, NotErasable, erase, erasure, look, of_requests, of_user
from watchkeeper_evaluations.erasure import selection as journal
from watchkeeper_evaluations.erasure.selection import Selection
from watchkeeper_evaluations.erasure.stores import GIVING, STORES
from watchkeeper_evaluations.erasure.words import erase_in_lake
from watchkeeper_evaluations.window import Window

PLANTED = "zyxplanted"
START = datetime(2026, 5, 29, 12, tzinfo=UTC)
ID = "{:032x}".format


def record(number: int, user: str | None, session: str | None = None) -> Record:
    at = int((START + timedelta(minutes=number)).timestamp() * 1e6)
    text = PLANTED if user == "ana" else "kept"
    return Record(request_id=ID(number), received_at=at, user=user, session=session, prompt_text=text)


@pytest.fixture
def settings(tmp_path: Path, free_port: Callable[[], int]) -> Settings:
    """Ana in every store of a data folder, ben beside her; MLflow away."""
    settings = Settings(data=tmp_path / "data", mlflow=Mlflow(uri=f"http://127.0.0.1:{free_port()}"))
    settings.data.mkdir()
    lake = Lake(settings.lake_uri)
    lake.append("interactions", to_arrow([record(1, "ana", "s"), record(2, "ben"), record(3, None, "s")]))
    lake.append(
        "feedback",
        feedback_rows([Feedback(feedback_id=ID(90), request_id=ID(2), received_at=1, comment=PLANTED, user="ana")]),
    )
    sessions = Sessions(settings.data / "sessions.sqlite")
    sessions.add("default", "s", PLANTED, PLANTED, ID(1))
    sessions.add("default", "b", "kept", "kept", ID(2))
    sessions.close()
    letters = DeadLetters(settings.data)
    for number, user in ((4, "ana"), (5, "ben")):
        letters.bury([DeadLetter(1, "mlflow", user, "segment", number, ID(number), RECORD, encode(record(number, user)))])
    said = Feedback(feedback_id=ID(91), request_id=ID(2), received_at=1, comment=PLANTED, user="ana")
    letters.bury([DeadLetter(1, "mlflow", "unknown", "segment", 6, ID(2), FEEDBACK, feedback.encode(said))])
    letters.close()
    return settings


async def spooled(settings: Settings) -> Spool:
    spool = Spool.open(settings.spool_folder, "gateway-0")
    for one in (record(7, "ana"), record(8, "ben"), record(9, None, "s")):
        spool.accept(one.request_id, one.received_at)
        await spool.append(one)
    return spool


def holding(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_all_but_mlflow_is_erased_and_the_rest_is_left_for_the_next(settings: Settings) -> None:
    spool = await spooled(settings)
    seen = look(settings, of_user("ana"))
    assert (seen.requests, seen.feedback, seen.removed) == (5, 2, {})
    assert holding(settings.data), "looking changes nothing"
    done = erase(settings, of_user("ana"), by="the test")
    assert (done.requests, done.feedback) == (5, 2), "later requests of a session go with the one that began it"
    assert done.removed == {
        "sessions": 1, "spool": 2, "dead_letters": 2, "lake.interactions": 2, "lake.feedback": 1,
    }  # fmt: skip
    assert done.left == (f"MLflow does not answer at {settings.mlflow.uri}",)
    assert holding(settings.data) == []
    assert journal.begun(settings.data) is not None
    lake = Lake(settings.lake_uri)
    assert lake.query("SELECT request_id FROM interactions").column(0).to_pylist() == [ID(2)]
    sessions = Sessions(settings.data / "sessions.sqlite")
    assert (len(sessions.turns("default", "b", 9)), len(sessions.turns("default", "s", 9))) == (2, 0)
    sessions.close()
    letters = DeadLetters(settings.data)
    assert [letter.request_id for letter in letters] == [ID(5)]
    letters.close()
    deliveries = Deliveries(settings.data)
    assert deliveries.erased() == {ID(number) for number in (1, 3, 4, 7, 9)}
    deliveries.close()
    again = erase(settings, of_user("ana"), by="the test")
    assert (again.resumed, again.requests, again.removed) == (True, 5, {})
    await spool.close()


def test_of_two_people_of_one_name_only_the_tenants_is_erased(settings: Settings) -> None:
    """Feedback has no tenant of its own: it is of whose answer it speaks. Where nobody knows of that answer, it goes."""
    lake = Lake(settings.lake_uri)
    theirs = [
        msgspec.structs.replace(record(number, None), tenant=tenant) for number, tenant in ((20, "acme"), (21, "other"))
    ]
    lake.append("interactions", to_arrow(theirs))
    said = [Feedback(feedback_id=ID(n + 100), request_id=ID(n), received_at=1, user="eve") for n in (20, 21, 22)]
    lake.append("feedback", feedback_rows(said))
    letters = DeadLetters(settings.data)
    waiting = [Feedback(feedback_id=ID(n + 200), request_id=ID(n), received_at=1, user="eve") for n in (20, 21)]
    letters.bury([DeadLetter(1, "mlflow", "?", "t", n, one.request_id, FEEDBACK, feedback.encode(one))
                  for n, one in enumerate(waiting)])  # fmt: skip
    letters.close()
    assert look(settings, of_user("eve")).feedback == 5
    done = erase(settings, of_user("eve", "acme"), by="the test")
    assert (done.requests, done.feedback) == (0, 3)
    left = lake.query("SELECT feedback_id FROM feedback WHERE \"user\" = 'eve'").column(0).to_pylist()
    assert left == [ID(121)]


@pytest.mark.parametrize("at", range(len(STORES)))
@pytest.mark.anyio
async def test_cut_off_at_any_store_the_next_erasure_finishes_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    spool = await spooled(settings)

    def cut_off(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erasure, "STORES", (*STORES[:at], cut_off))
        with pytest.raises(KeyboardInterrupt):
            erase(settings, of_user("ana"), by="the test")
    done = erase(settings, of_requests([ID(50)]), by="somebody who asks for something else")
    assert done.resumed
    assert holding(settings.data) == []
    assert Lake(settings.lake_uri).query("SELECT request_id FROM interactions").column(0).to_pylist() == [ID(2)]
    await spool.close()


@pytest.mark.anyio
async def test_an_answer_under_way_is_waited_for_and_erased_with_the_rest(settings: Settings) -> None:
    spool = await spooled(settings)
    late = record(20, "ana")
    spool.accept(late.request_id, late.received_at)
    running = asyncio.create_task(asyncio.to_thread(erase, settings, of_user("ana"), by="the test", answers_s=20))
    await asyncio.sleep(0.3)
    assert not running.done()
    await spool.append(late)
    done = await running
    assert done.requests == 6
    assert done.left == (f"MLflow does not answer at {settings.mlflow.uri}",)
    assert holding(settings.data) == []
    spool.accept(ID(21), late.received_at)
    await asyncio.sleep(0.1)
    hanging = await asyncio.to_thread(erase, settings, of_user("ana"), by="the test", answers_s=0.1)
    assert "1 requests were still being answered after 0.1 s" in hanging.left
    await spool.close()


def test_who_carries_texts_and_does_not_arrive_is_named(settings: Settings) -> None:
    arrive = threading.Event()

    def experiment() -> None:
        with carrying(settings.data, "experiment"):
            arrive.wait(20)

    under_way = threading.Thread(target=experiment)
    under_way.start()
    time.sleep(0.1)
    done = erase(settings, of_user("ana"), by="the test", patience_s=0.1)
    arrive.set()
    under_way.join()
    assert "experiment was still under way after 0.1 s: what it carries may arrive yet" in done.left
    assert not holding(settings.data), "all else is erased"


def test_the_audit_says_who_and_how_much_and_nothing_of_what(settings: Settings) -> None:
    erase(settings, of_user("ana"), by="the test")
    erase(settings, of_requests([ID(2)]), by="the test")
    text = (settings.data / erasure.AUDIT).read_text()
    first, second = map(json.loads, text.splitlines())
    assert not any(said in text for said in ('"ana"', PLANTED, '"s"'))
    assert (first["by"], first["requests"], first["removed"]["dead_letters"]) == ("the test", 3, 2)
    assert first["asked"] == Asked(user="ana").named(settings.data)
    assert first["asked"]["hash"] != Asked(user="ben").named(settings.data)["hash"]
    assert second["asked"] == {"kind": "requests", "requests": [ID(2)]}
    assert second["lake_versions"]["interactions"] > first["lake_versions"]["interactions"]
    assert (settings.data / "erasures.key").stat().st_mode & 0o077 == 0


def test_a_user_or_a_request_that_cannot_be_told_from_others_is_refused() -> None:
    with pytest.raises(NotErasable, match=r"\[EMAIL\] is everybody's who.*give the ids of the requests"):
        of_user("[EMAIL]")
    for wrong, names in (("32 hex digits, not 'x'", ["x"]), ("give the id", [" "])):
        with pytest.raises(NotErasable, match=wrong):
            of_requests(names)
    assert of_requests([f"tr-{ID(10).upper()}", ID(10)]).requests == {ID(10)}


def test_a_user_whose_name_is_redacted_is_found_under_every_key_and_nobody_else_is(settings: Settings) -> None:
    mail, other = "ana@example.com", "ben@example.com"
    before = Redactor(Labels(keys=[b"1" * 32]))
    now = Redactor(Labels(keys=[b"2" * 32, b"1" * 32]))
    names = [before.name(mail), now.name(mail.upper()), now.name(other), before.name(other), "[EMAIL]"]
    rows = to_arrow([record(30 + number, name) for number, name in enumerate(names)])
    Lake(settings.lake_uri).append("interactions", rows, app_id="redacted", version=1)
    assert look(settings, of_user(mail, redact=now)).requests == 2
    assert look(settings, of_user(mail)).requests == 0, "the name as it came was never stored"


def test_that_collectors_have_it_is_said(settings: Settings, tmp_path: Path) -> None:
    tempo = Collector(name="tempo", url="http://127.0.0.1:9/v1/traces")
    sending = settings.model_copy(update={"collectors": (tempo,)})
    done = erase(sending, of_user("ana"), by="the test")
    assert "these may have been sent to collectors (tempo): delete the traces of these ids there" in done.elsewhere
    assert not done.complete
    (empty := tmp_path / "empty").mkdir()
    assert erase(sending.model_copy(update={"data": empty}), of_user("ana"), by="the test").elsewhere == ()


def test_words_go_from_the_reasons_of_windows_that_held_an_erased_request(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    reference = Window(START - timedelta(hours=2), START - timedelta(hours=1))
    plain = (
        f"2 of 9 columns differ from {reference}: prompt_text (AUC 0.90, p 0.01); language (total variation 0.4, p 0.01)"
    )
    told = plain.replace("p 0.01);", f"p 0.01; more: {PLANTED}, bill; fewer: straße);", 1)
    assert without_words(told) == plain
    for number, hours in enumerate((0, 1, 2)):
        lake.append(
            "evaluations",
            evaluation_row(
                evaluation_id=f"drift-{number}", job="drift", evaluated_at=START, lake_version=1, n=9, verdict="fail",
                window_start=START + timedelta(hours=hours), window_end=START + timedelta(hours=hours + 1), reason=told,
                metrics={},
            ),
        )  # fmt: skip

    def reasons() -> list[str]:
        rows: list[str] = lake.query("SELECT reason FROM evaluations ORDER BY evaluation_id").column(0).to_pylist()
        return rows

    in_the_first = int((START + timedelta(minutes=30)).timestamp() * 1e6)
    assert erase_in_lake(lake, [in_the_first - 10**15, in_the_first]) == 1
    assert reasons() == [plain, told, told]
    in_the_reference = int(reference.start.timestamp() * 1e6)
    assert erase_in_lake(lake, [in_the_reference]) == 2
    assert reasons() == [plain, plain, plain]
    assert erase_in_lake(lake, [in_the_first]) == 0


def test_selections_are_joined_and_kept_on_disk(tmp_path: Path) -> None:
    one = Selection(requests={"a": 5, "b": 0}, replays=frozenset("r"))
    other = Selection(requests={"b": 7}, feedback={"f": "a"}, cases=frozenset("c"))
    both = one | other
    assert both == Selection(requests={"a": 5, "b": 7}, feedback={"f": "a"}, cases=frozenset("c"), replays=frozenset("r"))
    assert (both.times, bool(both), bool(Selection())) == ([5, 7], True, False)
    assert journal.begun(tmp_path) is None
    journal.begin(tmp_path, both)
    assert journal.begun(tmp_path) == both
    journal.end(tmp_path)
    journal.end(tmp_path)
    assert journal.begun(tmp_path) is None


def test_gateways_forget_the_answers_they_keep_before_and_after_the_last_ones_arrive(settings: Settings) -> None:
    kept = AnswerCache(settings.data, 3600.0, 10, 1_000_000, time.monotonic)
    keys = Keys(b"a", None, kept.now())
    kept.put(keys, Entry(ID(1), Delta(PLANTED, "stop")))
    assert kept.get(b"a")
    erase(settings, of_user("ana"), by="the test", sleep=lambda _: None)
    assert kept.get(b"a") is None
    kept.put(keys, Entry(ID(1), Delta(PLANTED, "stop")))
    assert kept.get(b"a") is None, "a request that looked before the erasure keeps nothing"
    names = [store.__name__ for store in (*GIVING, *STORES)]
    assert names.count("answers") == 2
