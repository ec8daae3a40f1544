"""When a sink will have caught up, from how fast it was lately; and never a guess."""

from watchkeeper.telemetry.pace import Pace


def test_nothing_is_known_at_first_and_nothing_pending_is_done() -> None:
    pace = Pace()
    assert (pace.per_s, pace.done_in_s) == (None, None)
    pace.look(0.0, 0, 500)
    assert (pace.per_s, pace.done_in_s) == (None, None)
    pace.look(1.0, 500, 0)
    assert (pace.per_s, pace.done_in_s) == (None, 0.0)


def test_what_comes_meanwhile_counts_against_it() -> None:
    pace = Pace()
    for second in range(11):  # 150 a second go, 50 come: 100 fewer a second
        pace.look(float(second), 150 * second, 10_000 - 100 * second)
    assert pace.per_s == 150.0
    assert pace.done_in_s == 90.0


def test_a_sink_that_is_away_or_falls_behind_will_not_be_done() -> None:
    pace = Pace()
    for second in range(11):
        pace.look(float(second), 0, 1000 + 10 * second)
    assert (pace.per_s, pace.done_in_s) == (0.0, None)


def test_only_the_last_minute_counts() -> None:
    pace = Pace()
    for second in range(0, 200, 5):  # away for a hundred seconds, then 200 a second
        gone = max(0, second - 100) * 200
        pace.look(float(second), gone, 100_000 - gone)
    assert pace.per_s == 200.0
    assert pace.done_in_s is not None
    assert 404 < pace.done_in_s < 406


def test_a_clock_that_jumps_back_starts_anew() -> None:
    pace = Pace()
    for second in (100.0, 110.0, 3.0):
        pace.look(second, 0, 100)
    assert (pace.per_s, pace.done_in_s) == (None, None)
