"""Windows as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper_evaluations.window import Window, moment, parse_reference, parse_window, written

NOW = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
NAIVE = datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("2200-01-01")
TIMES = st.datetimes(*NAIVE, timezones=ZONES)


def parse(last: str | None = None, since: str | None = None, until: str | None = None) -> Window:
    return parse_window(last=last, since=since, until=until, now=NOW)


@given(TIMES)
def test_a_time_reads_back_as_it_was_written(at: datetime) -> None:
    assert moment(written(at)) == at
    assert moment(at.isoformat()) == at


@given(st.text(max_size=40))
def test_anything_else_is_one_line_of_error(text: str) -> None:
    says = ""
    try:
        assert moment(text).tzinfo is UTC
    except ValueError as error:
        says = str(error)
    assert len(says.splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2026-04-01T09:30", 9), ("2026-04-01 09:30Z", 9), ("2026-04-01T09:30+02:00", 7), ("2026-04-01", 0)],
)
def test_a_time_without_a_zone_is_utc(text: str, hour: int) -> None:
    assert moment(text).hour == hour
    assert moment(text).utcoffset() == timedelta(0)


def test_the_last_hour_is_what_nothing_means() -> None:
    assert parse() == parse(last="1h") == Window(NOW - HOUR, NOW)
    assert parse(last="7d").start == NOW - timedelta(days=7)


def test_since_runs_until_now_and_never_into_the_future() -> None:
    assert parse(since="2026-04-01T11:00") == Window(NOW - HOUR, NOW)
    assert parse(since="2026-04-01T11:00", until="2030-01-01").end == NOW
    assert parse(since="2026-04-01T09:00", until="2026-04-01T10:00").end == NOW - 2 * HOUR


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"last": "1h", "since": "2026-04-01"}, "not both"),
        ({"until": "2026-04-01"}, "--since"),
        ({"last": "an hour"}, "1h"),
        ({"last": "9999999999d"}, "dates"),
        ({"last": "99999999999999999999d"}, "dates"),
        ({"since": "yesterday"}, "yesterday"),
        ({"since": "2026-04-02"}, "future"),
        ({"since": "2026-04-01T10:00", "until": "2026-04-01T10:00"}, "end after it starts"),
        ({"since": "2026-04-01T10:00", "until": "2026-04-01T09:00"}, "end after it starts"),
    ],
)
def test_what_makes_no_window_says_so_in_one_line(given_: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        parse(**given_)
    assert len(str(raised.value).splitlines()) == 1


def test_a_window_needs_zones_and_keeps_utc() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Window(NAIVE[0], NOW)
    window = Window(NOW.astimezone(timezone(HOUR)), NOW + HOUR)
    assert str(window) == "2026-04-01T12:00:00Z..2026-04-01T13:00:00Z"


def test_references() -> None:
    window = Window(NOW - HOUR, NOW)
    assert parse_reference("previous", window) == Window(NOW - 2 * HOUR, NOW - HOUR)
    # Half-open: what ends where the window starts shares no row with it.
    touching = parse_reference("2026-04-01T09:00..2026-04-01T11:00", window)
    assert touching == Window(NOW - 3 * HOUR, NOW - HOUR)
    for text, says in (
        ("2026-04-01T09:00..2026-04-01T11:01", "overlaps"),
        ("release:demo", "previous"),
        ("2026-04-01T09:00", "previous"),
        ("..2026-04-01T09:00", "a time looks like"),
    ):
        with pytest.raises(ValueError, match=says):
            parse_reference(text, window)


def test_nothing_comes_before_the_beginning() -> None:
    window = Window(datetime(1, 1, 1, 1, tzinfo=UTC), NOW)
    with pytest.raises(ValueError, match="nothing comes before"):
        parse_reference("previous", window)
