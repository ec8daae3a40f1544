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
from watchkeeper.serving.sessions import KEPT_CHARACTERS, KEPT_S, KEPT_TURNS, Sessions, SessionsUnavailable, forget


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
    sessions.add("t", "s", "Hi", "Hello", "r")
    sessions.add("t", "s", "And?", "Well", "r")
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
    sessions.add("t", "s", "mine", "yes", "r")
    assert sessions.turns("other", "s", 6) == ()
    assert sessions.turns("t", "other", 6) == ()
    sessions.close()


def test_another_worker_reads_what_this_one_wrote(file: Path) -> None:
    one, other = Sessions(file), Sessions(file)
    one.add("t", "s", "a", "b", "r")
    other.add("t", "s", "c", "d", "r")
    assert texts(one.turns("t", "s", 6)) == texts(other.turns("t", "s", 6)) == ["a", "b", "c", "d"]
    one.close()
    other.close()


def test_only_the_last_turns_are_kept(file: Path) -> None:
    sessions = Sessions(file)
    for number in range(KEPT_TURNS + 10):
        sessions.add("t", "s", f"q{number}", f"a{number}", "r")
    sessions.add("t", "other", "q", "a", "r")
    assert len(sessions.turns("t", "s", 1000)) == 2 * KEPT_TURNS
    assert texts(sessions.turns("t", "s", 1000))[0] == "q10"
    assert len(sessions.turns("t", "other", 1000)) == 2
    sessions.close()


def test_old_turns_are_not_given_and_then_gone(file: Path) -> None:
    clock = Clock()
    sessions = Sessions(file, clock)
    sessions.add("t", "old", "q", "a", "r")
    clock.now += KEPT_S + 1
    assert sessions.turns("t", "old", 6) == ()
    sessions.add("t", "new", "q", "a", "r")
    sessions.close()
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT session FROM exchanges").fetchall() == [("new",)]
    connection.close()


def test_a_long_text_is_cut_and_a_broken_character_replaced(file: Path) -> None:
    sessions = Sessions(file)
    sessions.add("t", "s", "x" * (KEPT_CHARACTERS + 5), "bad \ud800", "r")
    assert [len(text) for text in texts(sessions.turns("t", "s", 1))] == [KEPT_CHARACTERS, 5]
    sessions.close()


def test_what_is_forgotten_leaves_no_trace_in_the_files(file: Path) -> None:
    sessions = Sessions(file)
    sessions.add("t", "s", "the quick brown secret", "noted", "first")
    sessions.add("t", "s", "more", "as you said: the quick brown secret", "second")
    sessions.add("t", "kept", "stays", "yes", "third")
    assert any(b"brown secret" in part.read_bytes() for part in file.parent.iterdir())
    assert forget(file, ["first", "unknown"]) == 2, "its later turns lean on it"
    assert sessions.turns("t", "s", 6) == ()
    assert texts(sessions.turns("t", "kept", 6)) == ["stays", "yes"]
    assert not any(b"brown secret" in part.read_bytes() for part in file.parent.iterdir())
    assert forget(file, ["first"]) == 0
    sessions.close()


def test_forgetting_makes_no_file_and_says_when_somebody_holds_it(file: Path) -> None:
    assert forget(file, ["r"]) == 0
    assert not file.exists()
    sessions = Sessions(file)
    sessions.add("t", "s", "q", "a", "r")
    reader = sqlite3.connect(file)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM exchanges").fetchall()
    with pytest.raises(SessionsUnavailable, match="others were at work on it"):
        forget(file, ["r"], wait_s=0.1)
    reader.close()
    assert forget(file, ["r"]) == 0, "the rows went before, and now the log"
    assert file.with_name(f"{file.name}-wal").stat().st_size == 0
    sessions.close()


def test_a_broken_file_is_unavailable_and_a_sound_one_is_used_again(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"this is no database at all" * 100)
    sessions = Sessions(file)
    with pytest.raises(SessionsUnavailable, match="sessions_corrupt"):
        sessions.turns("t", "s", 6)
    with pytest.raises(SessionsUnavailable, match="sessions_corrupt"):
        sessions.add("t", "s", "q", "a", "r")
    file.unlink()
    sessions.add("t", "s", "q", "a", "r")
    assert texts(sessions.turns("t", "s", 6)) == ["q", "a"]
    sessions.close()


def test_a_locked_file_is_unavailable_for_writing_and_still_read(file: Path) -> None:
    sessions = Sessions(file)
    sessions.add("t", "s", "q", "a", "r")
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(SessionsUnavailable, match="sessions_locked"):
        sessions.add("t", "s", "q2", "a2", "r")
    assert texts(sessions.turns("t", "s", 6)) == ["q", "a"]
    holder.execute("ROLLBACK")
    holder.close()
    sessions.add("t", "s", "q3", "a3", "r")
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
            sessions.add("t", name, f"q{number}", "a", "r")

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
        sessions.add("t", sys.argv[2], f"q{done}", "a", "r")
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


FLOOD = """
import sys
from pathlib import Path
from watchkeeper.serving.sessions import Sessions, SessionsUnavailable
sessions, done = Sessions(Path(sys.argv[1]), most_bytes=400_000), 0
while done < 150:
    try:
        sessions.add(sys.argv[2], f"s{done % 40}", f"q{done} " + "x" * 2000, "a" * 2000, f"r{done}")
        done += 1
    except SessionsUnavailable as away:
        assert str(away) == "sessions_locked", away
"""


def test_however_many_sessions_come_through_several_workers_the_file_stays_small(file: Path) -> None:
    """1.2 MB of turns into 400 kB: nothing fails, the oldest go, and the newest of whoever came last are there."""
    workers = [subprocess.Popen([sys.executable, "-c", FLOOD, str(file), f"t{number}"]) for number in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    assert file.stat().st_size <= 400_000
    sessions = Sessions(file)
    newest = [texts(sessions.turns(f"t{number}", "s29", 1)) for number in range(2)]
    assert any(turn and turn[0].startswith("q149 ") for turn in newest)
    with sqlite3.connect(file) as connection:
        (first, last) = connection.execute("SELECT min(number), max(number) FROM exchanges").fetchone()
    connection.close()
    assert last == 300
    assert first > 100
    sessions.close()


def test_whoever_has_most_makes_room(file: Path) -> None:
    sessions = Sessions(file, most_bytes=300_000)
    sessions.add("small", "s", "kept", "yes", "r")
    for number in range(300):
        sessions.add("large", f"s{number}", "x" * 2_000, "y", "r")
    assert texts(sessions.turns("small", "s", 6)) == ["kept", "yes"]
    assert len(sessions.turns("large", "s299", 6)) == 2
    assert sessions.turns("large", "s0", 6) == ()
    sessions.close()


FULL = """
import resource, sys
from pathlib import Path
from watchkeeper.serving.sessions import Sessions, SessionsUnavailable
sessions = Sessions(Path(sys.argv[1]))
sessions.add("t", "s", "q", "a", "r")
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
codes = set()
for number in range(20):
    try:
        sessions.add("t", "s", "x" * 15_000, "y" * 15_000, "r")
    except SessionsUnavailable as away:
        codes.add(str(away))
read = len(sessions.turns("t", "s", 50)) > 0
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sessions.add("t", "s", "after", "that", "r")
print(*codes, read, sessions.turns("t", "s", 1)[0].content)
"""


def test_a_disk_without_room_is_said_and_passes(file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(file)], capture_output=True, text=True, check=True)
    code, read, last = done.stdout.split()
    assert code in {"sessions_full", "sessions_unavailable"}
    assert (read, last) == ("True", "after")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    sessions = Sessions(tmp_path_factory.mktemp("any") / "sessions.sqlite")
    yield sessions
    sessions.close()


@given(tenant=st.text(max_size=20), session=st.text(max_size=20), asked=st.text(max_size=50), answered=st.text(max_size=50))
def test_any_text_comes_back_as_it_went(shared: Sessions, tenant: str, session: str, asked: str, answered: str) -> None:
    shared.add(tenant, session, asked, answered, "r")
    assert texts(shared.turns(tenant, session, 1)) == [asked, answered]
