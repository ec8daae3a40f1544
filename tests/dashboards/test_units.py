"""Numbers as people read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from watchkeeper_dashboards import units


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, "–"), (float("nan"), "–"), (0.004, "<0.01 ms"), (0.42, "0.42 ms"), (3, "3 ms"), (35.4, "35 ms"),
        (999.4, "999 ms"), (1_640, "1.64 s"), (12_300, "12.3 s"), (125_000, "2 min 5 s"),
    ],
)  # fmt: skip
def test_milliseconds(ms: float | None, words: str) -> None:
    assert units.milliseconds(ms) == words


@pytest.mark.parametrize(("ms", "words"), [(0.1, "0.1 ms"), (500, "500 ms"), (2_000, "2 s"), (10_000, "10 s")])
def test_round_milliseconds(ms: float, words: str) -> None:
    assert units.round_milliseconds(ms) == words


@pytest.mark.parametrize(("n", "words"), [(0, "0"), (230_771, "230,771"), (12_340_000, "12.3M")])
def test_count(n: float, words: str) -> None:
    assert units.count(n) == words


@pytest.mark.parametrize(("n", "words"), [(950, "950"), (12_340, "12.3k"), (4_100_000, "4.1M"), (2e9, "2G")])
def test_short_count(n: float, words: str) -> None:
    assert units.short_count(n) == words


@pytest.mark.parametrize(
    ("part", "words"),
    [(None, "–"), (0.0, "0%"), (1.0, "100%"), (0.0054, "0.54%"), (0.095, "9.5%"), (float("nan"), "–")],
)
def test_share(part: float | None, words: str) -> None:
    assert units.share(part) == words


@pytest.mark.parametrize(
    ("usd", "words"),
    [(None, "–"), (0.0, "$0"), (0.00031, "$0.00031"), (0.4, "$0.40"), (1_204.4, "$1,204"), (0.0000031, "<$0.0001")],
)
def test_dollars(usd: float | None, words: str) -> None:
    assert units.dollars(usd) == words


@pytest.mark.parametrize(("value", "words"), [(None, "–"), (0.0, "0.00"), (0.0012, "<0.01"), (0.84, "0.84"), (1.0, "1.00")])
def test_score(value: float | None, words: str) -> None:
    assert units.score(value) == words


def test_times_are_said_in_utc_wherever_they_come_from() -> None:
    when = datetime(2026, 1, 9, 23, 59, 59, tzinfo=timezone(timedelta(hours=-2)))
    assert units.clock(when) == "01:59:59"
    assert units.day_and_clock(when) == "10 Jan 01:59:59"
    assert units.moment(when) == "10 Jan 2026 01:59:59 UTC"


def test_a_window_names_the_second_day_only_where_it_is_another() -> None:
    noon = datetime(2026, 1, 9, 12, tzinfo=UTC)
    assert units.window(noon, noon + timedelta(hours=1)) == "9 Jan 12:00 to 13:00"
    assert units.window(noon, noon + timedelta(days=1)) == "9 Jan 12:00 to 10 Jan 12:00"


@pytest.mark.parametrize(
    ("seconds", "words"), [(45, "45 seconds"), (300, "5 minutes"), (3_600, "1 hour"), (172_800, "2 days")]
)
def test_duration(seconds: float, words: str) -> None:
    assert units.duration(seconds) == words
