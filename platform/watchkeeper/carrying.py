"""Who carries what users wrote from one store to another, and how an erasure has them all stand still.

    <data>/carrying/gate     an erasure holds it alone while it waits and works; who sets out passes it
    <data>/carrying/<what>   shared by all who are at it: the shipper's batches, evaluations, experiments, …

A text that was read before it was erased could be written down again after. So an erasure lets those who are under way
arrive, keeps everybody else from setting out, and only then takes its look. Locks of the system's: they end with their
process, and hold on one machine only. Standard library only: the shipper loads this.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, get_args

FOLDER: Final = "carrying"
GATE: Final = "gate"

What = Literal["shipping", "evaluation", "experiment", "dataset", "import", "upkeep"]
WHAT: Final[tuple[What, ...]] = get_args(What)

LOOK_AGAIN_S: Final = 0.05


@contextlib.contextmanager
def carrying(data: Path, what: What) -> Iterator[None]:
    """For as long as texts are on their way. Waits while an erasure is at work; not to be taken again inside."""
    with _locked(data, GATE, fcntl.LOCK_SH):
        held = _open(data, what)
        fcntl.flock(held, fcntl.LOCK_SH)  # at once: who holds it alone holds the gate
    try:
        yield
    finally:
        os.close(held)


@contextlib.contextmanager
def standstill(
    data: Path,
    patience_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[What, ...]]:
    """Nobody carries anything, and nobody sets out; but what is given was still under way after `patience_s` (all of them
    together), and may arrive during the block or after it. One erasure at a time: another one waits at the gate."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_locked(data, GATE, fcntl.LOCK_EX))
        until = clock() + patience_s
        under_way: list[What] = []
        for what in WHAT:
            held = _open(data, what)
            stack.callback(os.close, held)
            while not _taken(held):
                if clock() >= until:
                    under_way.append(what)
                    break
                sleep(LOOK_AGAIN_S)
        yield tuple(under_way)


@contextlib.contextmanager
def _locked(data: Path, name: str, how: int) -> Iterator[None]:
    held = _open(data, name)
    try:
        fcntl.flock(held, how)
        yield
    finally:
        os.close(held)


def _open(data: Path, name: str) -> int:
    folder = data / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)


def _taken(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
