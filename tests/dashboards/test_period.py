"""The chosen time: what a URL means, and how wide its buckets are."""

from datetime import UTC, datetime, timedelta

import pytest

from watchkeeper_dashboards.period import BUCKET_S, DEFAULT, RANGES, between, bucket_width, chosen, named, period

NOW = datetime(2026, 1, 10, 16, 57, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("search", "name"),
    [
        ("?range=1h", "1h"),
        ("?q=x&range=all", "all"),
        ("", DEFAULT),
        (None, DEFAULT),
        ("?range=9y", DEFAULT),
        ("?range=", DEFAULT),
    ],
)
def test_the_url_chooses_and_nonsense_is_the_default(search: str | None, name: str) -> None:
    assert chosen(search) == name


@pytest.mark.parametrize("name", [name for name, length in RANGES.items() if length])
def test_a_period_covers_its_range_on_whole_buckets(name: str) -> None:
    length = RANGES[name]
    assert length is not None
    span = period(name, NOW, None)
    assert span.end == NOW
    assert span.start.timestamp() % span.bucket_s == 0
    assert timedelta(seconds=length) <= NOW - span.start < timedelta(seconds=length + span.bucket_s)


def test_the_window_before_ends_where_this_one_starts_and_all_time_has_none() -> None:
    span = period("1h", NOW, None)
    assert span.prior is not None
    assert span.prior.end == span.start
    assert span.prior.end - span.prior.start == timedelta(hours=1)
    assert period("all", NOW, NOW - timedelta(days=3)).prior is None


def test_all_time_begins_with_the_first_bucket() -> None:
    first = NOW - timedelta(days=40)
    span = period("all", NOW, first)
    assert first - timedelta(seconds=span.bucket_s) < span.start <= first


@pytest.mark.parametrize("days", [0.01, 0.2, 1, 3, 30, 365])
def test_no_width_makes_more_bars_than_a_chart_shows(days: float) -> None:
    width = bucket_width(days * 86_400)
    assert width % BUCKET_S == 0
    assert days * 86_400 / width <= 72


def test_a_young_system_gets_the_finest_buckets() -> None:
    assert bucket_width(600) == BUCKET_S


def test_a_link_names_an_interval_and_what_else_it_asks_for() -> None:
    query = between(NOW - timedelta(minutes=5), NOW, score="grounded", release=None)
    assert query == "?since=2026-01-10T16%3A52%3A30Z&until=2026-01-10T16%3A57%3A30Z&score=grounded"
    span = named(query)
    assert span is not None
    assert (span.start, span.end) == (NOW - timedelta(minutes=5), NOW)
    assert span.words == "10 Jan 16:52 to 16:57"
    assert span.prior is None


@pytest.mark.parametrize(
    "search",
    [
        None, "?range=6h", "?since=2026-01-10T16:00:00Z", "?since=x&until=y",
        "?since=2026-01-10T16:00:00Z&until=2026-01-10T16:00:00Z", "?since=2026-01-10T17:00:00Z&until=2026-01-10T16:00:00Z",
    ],
)  # fmt: skip
def test_what_names_no_interval_is_none(search: str | None) -> None:
    assert named(search) is None


def test_times_without_a_zone_are_utc() -> None:
    span = named("?since=2026-01-10T16:00&until=2026-01-10T18:00%2B01:00")
    assert span is not None
    assert span.end - span.start == timedelta(hours=1)


@pytest.mark.parametrize("name", list(RANGES))
def test_buckets_are_as_narrow_as_what_there_is_allows(name: str) -> None:
    young, old = NOW - timedelta(minutes=14), NOW - timedelta(days=400)
    assert period(name, NOW, young).bucket_s == 300
    if name != "all":
        assert period(name, NOW, old) == period(name, NOW, None)
