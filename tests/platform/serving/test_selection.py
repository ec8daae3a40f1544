"""Selection: who names a release gets it; the others are drawn by a hash, sticky, and in the shares that were asked for."""

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.release import BUILTIN, CHALLENGER_FILE, FILE_NAME, MOST_SHARE, Challenger, Follower, Release, file_of
from watchkeeper.serving.selection import CHAMPION, falls, select, subject
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.settings import Route

BEST = Release(name="watchkeeper", version=1)
OTHER = Release(name="watchkeeper", version=2, template="Be another.", model="second")
UPSTREAMS = cast(Upstreams, SimpleNamespace(named=lambda name: name if name in ("first", "second") else None))
names = st.text(min_size=1, max_size=20)
shares = st.floats(0, MOST_SHARE)


def put(data: Path, champion: Release, challenger: Challenger | None) -> Follower:
    (data / "releases").mkdir(exist_ok=True)
    (data / FILE_NAME).write_bytes(msgspec.json.encode(champion))
    for release in (BEST, OTHER):
        file_of(data, release.id).write_bytes(msgspec.json.encode(release))
    if challenger is not None:
        (data / CHALLENGER_FILE).write_bytes(msgspec.json.encode(challenger))
    return Follower(data, time.monotonic)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_what_was_asked_for(share: float) -> None:
    """Within four standard deviations of a fair draw; the same every time, as nothing is random."""
    n, challenger = 40_000, Challenger(OTHER, share)
    drawn = sum(falls(challenger, subject("default", f"session-{number}", None, "")) for number in range(n))
    assert abs(drawn - n * share) < 4 * math.sqrt(n * share * (1 - share))


def test_another_challenger_is_drawn_for_others() -> None:
    """Independent draws of a half each agree on a half of the sessions, not on all."""
    n, ones = 4_000, [Challenger(msgspec.structs.replace(OTHER, template=text), 0.5) for text in ("one", "two")]
    subjects = [subject("default", f"session-{number}", None, "") for number in range(n)]
    agreed = sum(falls(ones[0], each) == falls(ones[1], each) for each in subjects)
    assert abs(agreed - n / 2) < 4 * math.sqrt(n / 4)


@given(names, shares, shares)
def test_who_was_drawn_stays_drawn_while_the_share_grows(session: str, one: float, other: float) -> None:
    asking = subject("default", session, None, "")
    less, more = (falls(Challenger(OTHER, share), asking) for share in sorted((one, other)))
    assert more or not less
    assert not falls(Challenger(OTHER, 0.0), asking)


@given(names, names, st.none() | names)
def test_a_conversation_is_one_subject_whoever_speaks_and_a_user_is_one_without(
    tenant: str, session: str, user: str | None
) -> None:
    assert subject(tenant, session, user, "1") == subject(tenant, session, None, "2")
    assert subject(tenant, None, session, "1") == subject(tenant, None, session, "2") != subject(tenant, session, None, "1")
    assert subject(tenant, None, None, "1") != subject(tenant, None, None, "2")
    assert subject(tenant, session, user, "1") != subject(tenant + "x", session, user, "1")


def test_who_names_a_release_or_an_upstream_is_not_drawn(tmp_path: Path) -> None:
    releases = put(tmp_path, BEST, Challenger(OTHER, MOST_SHARE))
    asking = next(each for number in range(99) if falls(Challenger(OTHER, MOST_SHARE), each := str(number).encode()))

    def selected(model: str) -> tuple[Any, ...] | None:
        found = select(model, None, releases.champion(), releases, UPSTREAMS, asking)
        return (found.release.id, found.upstream, found.by, found.share) if found else None

    assert selected(CHAMPION) == (OTHER.id, "second", "challenger", MOST_SHARE)
    assert selected(BEST.id) == (BEST.id, None, "named", None)
    assert selected(OTHER.id) == (OTHER.id, "second", "named", None)
    assert selected("first") == (BEST.id, "first", "named", None)
    assert selected("third") is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{broken",
        b"\xff",
        b'{"release": {"name": "watchkeeper"}, "share": 0.5}',
        msgspec.json.encode({"release": OTHER, "share": 0.6}),
        msgspec.json.encode({"release": OTHER, "share": -0.1}),
        msgspec.json.encode(Challenger(OTHER, 0.0)),
    ],
)
def test_without_a_good_challenger_the_champion_serves_all(tmp_path: Path, content: bytes | None) -> None:
    releases = put(tmp_path, BEST, None)
    if content is not None:
        (tmp_path / CHALLENGER_FILE).write_bytes(content)
        releases = Follower(tmp_path, time.monotonic)
    champion, asking = releases.champion(), [str(number).encode() for number in range(50)]
    found = [select(CHAMPION, None, champion, releases, UPSTREAMS, each) for each in asking]
    assert {(one.release.id, one.by) for one in found if one} == {(BEST.id, "champion")}


@pytest.mark.parametrize(
    ("wanted", "canary", "expected"),
    [
        (OTHER.id, False, (OTHER.id, "second", "route", None)),
        (BEST.id, True, (BEST.id, None, "route", None)),
        ("champion", True, (BEST.id, None, "route", None)),
        ("challenger", True, (OTHER.id, "second", "route", None)),
        ("challenger", False, (BEST.id, None, "route", None)),
        ("watchkeeper@9", True, (BEST.id, None, "champion", "watchkeeper@9")),
    ],
)
def test_a_route_has_its_release_unless_the_request_names_one(
    tmp_path: Path, wanted: str, canary: bool, expected: tuple[Any, ...]
) -> None:
    releases = put(tmp_path, BEST, Challenger(OTHER, 0.1) if canary else None)
    route = Route(name="help", release=wanted)

    def selected(model: str) -> tuple[Any, ...] | None:
        found = select(model, route, releases.champion(), releases, UPSTREAMS, b"x")
        return (found.release.id, found.upstream, found.by, found.missing) if found else None

    assert selected(CHAMPION) == expected
    assert selected(OTHER.id) == (OTHER.id, "second", "named", None)
    assert selected("first") == (BEST.id, "first", "named", None)


def test_a_challenger_comes_and_goes_with_its_file(tmp_path: Path) -> None:
    clock = SimpleNamespace(now=0.0)
    put(tmp_path, BUILTIN, None)
    releases = Follower(tmp_path, lambda: clock.now)
    assert releases.challenger() is None
    for held in (Challenger(OTHER, 0.1), Challenger(OTHER, 0.2), None):
        if held is None:
            (tmp_path / CHALLENGER_FILE).write_text("{broken, and another length than before}")
        else:
            (tmp_path / CHALLENGER_FILE).write_bytes(msgspec.json.encode(held))
        clock.now += 1
        assert releases.challenger() == held
    (tmp_path / CHALLENGER_FILE).write_bytes(msgspec.json.encode(Challenger(OTHER, 0.3)))
    clock.now += 0.5
    assert releases.challenger() is None, "a file is looked at once a second"
    clock.now += 0.5
    assert releases.challenger() == Challenger(OTHER, 0.3)
    (tmp_path / CHALLENGER_FILE).unlink()
    clock.now += 1
    assert releases.challenger() is None
