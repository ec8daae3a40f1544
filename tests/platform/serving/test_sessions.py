"""The turns of a session, kept for the next request, whichever worker gets it."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.record import Message
from watchkeeper.serving.sessions import KEPT_CHARACTERS, KEPT_S, KEPT_TURNS, Sessions, SessionsUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sessions.sqlite"


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [message.content for message in messages]


def test_turns_come_back_in_order_as_messages(file: Path) -> None:
    sessions = Sessions(file)
    sessions.add("t", "s", "Hi", "Hello")
    sessions.add("t", "s", "And?", "Well")
    assert sessions.turns("t", "s", 6) == (
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "And?"),
        Message("assistant", "Well"),
    )
    assert texts(sessions.turns("t", "s", 1)) == ["And?", "Well"]
    assert sessions.turns("t", "s", 0) == ()
    sessions.close()


def test_tenants_and_sessions_do_not_see_each_other(file: Path) -> None:
    sessions = Sessions(file)
    sessions.add("t", "s", "mine", "yes")
    assert sessions.turns("other", "s", 6) == ()
    assert sessions.turns("t", "other", 6) == ()
    sessions.close()


def test_another_worker_reads_what_this_one_wrote(file: Path) -> None:
    one, other = Sessions(file), Sessions(file)
    one.add("t", "s", "a", "b")
    other.add("t", "s", "c", "d")
    assert texts(one.turns("t", "s", 6)) == texts(other.turns("t", "s", 6)) == ["a", "b", "c", "d"]
    one.close()
    other.close()


def test_only_the_last_turns_are_kept(file: Path) -> None:
    sessions = Sessions(file)
    for number in range(KEPT_TURNS + 10):
        sessions.add("t", "s", f"q{number}", f"a{number}")
    sessions.add("t", "other", "q", "a")
    assert len(sessions.turns("t", "s", 1000)) == 2 * KEPT_TURNS
    assert texts(sessions.turns("t", "s", 1000))[0] == "q10"
    assert len(sessions.turns("t", "other", 1000)) == 2
    sessions.close()


def test_old_turns_are_not_given_and_then_gone(file: Path) -> None:
    clock = Clock()
    sessions = Sessions(file, clock)
    sessions.add("t", "old", "q", "a")
    clock.now += KEPT_S + 1
    assert sessions.turns("t", "old", 6) == ()
    sessions.add("t", "new", "q", "a")
    sessions.close()
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT session FROM turns").fetchall() == [("new",)]
    connection.close()


def test_a_long_text_is_cut_and_a_broken_character_replaced(file: Path) -> None:
    sessions = Sessions(file)
    sessions.add("t", "s", "x" * (KEPT_CHARACTERS + 5), "bad \ud800")
    assert [len(text) for text in texts(sessions.turns("t", "s", 1))] == [KEPT_CHARACTERS, 5]
    sessions.close()


def test_erasing_leaves_no_trace_in_the_files(file: Path) -> None:
    sessions = Sessions(file)
    sessions.add("t", "s", "the quick brown secret", "noted")
    sessions.add("t", "s", "more", "yes")
    sessions.add("t", "kept", "stays", "yes")
    assert sessions.erase("t", "s") == 2
    assert sessions.turns("t", "s", 6) == ()
    assert texts(sessions.turns("t", "kept", 6)) == ["stays", "yes"]
    assert not any(b"brown secret" in part.read_bytes() for part in file.parent.iterdir())
    sessions.close()


def test_a_broken_file_is_unavailable_and_a_sound_one_is_used_again(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"this is no database at all" * 100)
    sessions = Sessions(file)
    with pytest.raises(SessionsUnavailable, match="sessions_corrupt"):
        sessions.turns("t", "s", 6)
    with pytest.raises(SessionsUnavailable, match="sessions_corrupt"):
        sessions.add("t", "s", "q", "a")
    file.unlink()
    sessions.add("t", "s", "q", "a")
    assert texts(sessions.turns("t", "s", 6)) == ["q", "a"]
    sessions.close()


def test_a_locked_file_is_unavailable_for_writing_and_still_read(file: Path) -> None:
    sessions = Sessions(file)
    sessions.add("t", "s", "q", "a")
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(SessionsUnavailable, match="sessions_locked"):
        sessions.add("t", "s", "q2", "a2")
    assert texts(sessions.turns("t", "s", 6)) == ["q", "a"]
    holder.execute("ROLLBACK")
    holder.close()
    sessions.add("t", "s", "q3", "a3")
    assert texts(sessions.turns("t", "s", 6)) == ["q", "a", "q3", "a3"]
    sessions.close()


def test_a_place_that_cannot_hold_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    with pytest.raises(SessionsUnavailable):
        Sessions(tmp_path / "blocked" / "sessions.sqlite").turns("t", "s", 6)


def test_threads_may_share_one(file: Path) -> None:
    sessions = Sessions(file)

    def work(name: str) -> None:
        for number in range(20):
            sessions.add("t", name, f"q{number}", "a")

    threads = [threading.Thread(target=work, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(sessions.turns("t", f"s{number}", 50)) == 40 for number in range(4))
    sessions.close()


WRITER = """
import sys
from pathlib import Path
from watchkeeper.serving.sessions import Sessions, SessionsUnavailable
sessions, done = Sessions(Path(sys.argv[1])), 0
while done < 25:
    try:
        sessions.add("t", sys.argv[2], f"q{done}", "a")
        done += 1
    except SessionsUnavailable:
        pass
"""


def test_processes_may_share_the_file(file: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), f"s{number}"]) for number in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    sessions = Sessions(file)
    for number in range(2):
        assert texts(sessions.turns("t", f"s{number}", 50))[::2] == [f"q{turn}" for turn in range(25)]
    sessions.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    sessions = Sessions(tmp_path_factory.mktemp("any") / "sessions.sqlite")
    yield sessions
    sessions.close()


@given(tenant=st.text(max_size=20), session=st.text(max_size=20), asked=st.text(max_size=50), answered=st.text(max_size=50))
def test_any_text_comes_back_as_it_went(shared: Sessions, tenant: str, session: str, asked: str, answered: str) -> None:
    shared.add(tenant, session, asked, answered)
    assert texts(shared.turns(tenant, session, 1)) == [asked, answered]
