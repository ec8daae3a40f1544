"""Whoever carries texts arrives before an erasure looks, and sets out again after it, whatever process they are in."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from watchkeeper.carrying import carrying, standstill

HOLD = """
import pathlib, sys, time
from watchkeeper.carrying import carrying

with carrying(pathlib.Path(sys.argv[1]), "shipping"):
    print("under way", flush=True)
    time.sleep(60)
"""


def test_an_erasure_waits_for_who_is_under_way_and_nobody_sets_out_meanwhile(tmp_path: Path) -> None:
    told: list[str] = []
    under_way, arrive = threading.Event(), threading.Event()

    def carry(name: str) -> None:
        with carrying(tmp_path, "shipping"):
            told.append(f"{name} sets out")
            under_way.set()
            arrive.wait(10)
            told.append(f"{name} arrives")

    first = threading.Thread(target=carry, args=("the first",))
    first.start()
    under_way.wait(10)
    threading.Timer(0.2, arrive.set).start()
    with standstill(tmp_path, 10) as left:
        assert left == ()
        second = threading.Thread(target=carry, args=("the second",))
        second.start()
        time.sleep(0.1)
        told.append("erased")
    first.join()
    second.join()
    assert told[:3] == ["the first sets out", "the first arrives", "erased"]
    assert len(told) == 5


def test_many_carry_at_once(tmp_path: Path) -> None:
    with carrying(tmp_path, "shipping"), carrying(tmp_path, "evaluation"):
        done = threading.Event()

        def carry() -> None:
            with carrying(tmp_path, "shipping"):
                done.set()

        threading.Thread(target=carry).start()
        assert done.wait(10)


def test_who_does_not_arrive_is_named_and_free_once_its_process_is_dead(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with standstill(tmp_path, 0.1) as left:
        assert left == ("shipping",)
    holder.kill()
    holder.communicate()
    with standstill(tmp_path, 10) as left:
        assert left == ()


def test_two_erasures_take_turns(tmp_path: Path) -> None:
    entered = threading.Event()

    def other() -> None:
        with standstill(tmp_path, 10):
            entered.set()

    with standstill(tmp_path, 10):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()
