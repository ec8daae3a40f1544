"""Retries: each name at its own pace, whatever becomes of the others."""

from watchkeeper_evaluations.retries import AGAIN_S, Retries


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pause(retries: Retries, clock: Clock, name: str) -> float:
    """How long it takes until the name is due, to the second."""
    began = clock.now
    while name not in retries.due():
        clock.now += 1
    return clock.now - began


def test_at_first_all_are_due() -> None:
    assert Retries(["drift", "toxicity"], Clock()).due() == {"drift", "toxicity"}


def test_what_goes_on_failing_is_tried_less_often_and_from_the_start_after_a_success() -> None:
    clock = Clock()
    retries = Retries(["drift"], clock)
    pauses = []
    for _ in range(8):
        retries.tried("drift", again=True, failed=True)
        pauses.append(pause(retries, clock, "drift"))
    assert pauses == [20, 40, 80, 160, 320, 640, 640, 640]
    retries.tried("drift", again=False, failed=False)
    clock.now += 10_000
    assert retries.due() == set()
    retries.tried("drift", again=True, failed=True)
    assert pause(retries, clock, "drift") == AGAIN_S


def test_what_only_waits_is_looked_at_at_a_steady_pace() -> None:
    clock = Clock()
    retries = Retries(["drift"], clock)
    for _ in range(4):
        retries.tried("drift", again=True, failed=False)
        assert pause(retries, clock, "drift") == AGAIN_S


def test_the_tries_of_one_move_no_other() -> None:
    clock = Clock()
    retries = Retries(["drift", "toxicity"], clock)
    retries.tried("toxicity", again=True, failed=True)
    for _ in range(4):
        retries.tried("drift", again=False, failed=False)
        clock.now += AGAIN_S / 4
    assert retries.due() == {"toxicity"}
