"""The publisher: what MLflow says of releases comes to the gateways' files, and stays there whatever happens to MLflow."""

import logging
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from watchkeeper.release import BUILTIN, CHALLENGER_FILE, FILE_NAME, Challenger, Follower, Release, challenger
from watchkeeper.telemetry.publisher import WHOLE_S, Publisher
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.prompts import Releases

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracking(mlflow_uri: str) -> Tracking:
    return Tracking(mlflow_uri)


@pytest.fixture
def releases(tracking: Tracking) -> Releases:
    """A prompt of its own for each test."""
    return Releases(tracking, f"prompt-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def publisher(releases: Releases, tmp_path: Path, clock: Clock) -> Publisher:
    return Publisher(releases, tmp_path, threading.Event(), clock=clock)


def variant(number: int) -> Release:
    return msgspec.structs.replace(BUILTIN, template=f"Variant {number}.")


def files(data: Path) -> dict[str, bytes]:
    return {str(file.relative_to(data)): file.read_bytes() for file in data.rglob("*") if file.is_file()}


def test_every_release_and_the_champion_come_to_the_files(
    publisher: Publisher, releases: Releases, tmp_path: Path, clock: Clock
) -> None:
    publisher.publish()
    assert files(tmp_path) == {}, "nothing is registered: what serves stays"
    one, two = (releases.register(variant(number), "") for number in (1, 2))
    publisher.publish()
    follower = Follower(tmp_path, clock)
    assert follower.champion() == BUILTIN, "no alias: what serves stays"
    assert [follower.named(release.id) for release in (one, two)] == [one, two]
    releases.promote(two)
    publisher.publish()
    clock.now += 1
    assert follower.champion() == two
    releases.promote(one)
    publisher.publish()
    clock.now += 1
    assert follower.champion() == one
    assert publisher.status == msgspec.structs.replace(publisher.status, champion=one.id, releases=2, error=None)
    assert sorted(files(tmp_path)) == [FILE_NAME, *(f"releases/{release.id}.json" for release in (one, two))]


def test_what_is_deleted_in_mlflow_is_named_no_more_and_an_alias_that_goes_changes_nothing(
    publisher: Publisher, releases: Releases, tracking: Tracking, tmp_path: Path, clock: Clock
) -> None:
    one, two = (releases.register(variant(number), "") for number in (1, 2))
    releases.promote(one)
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "another@1.json").write_bytes(msgspec.json.encode(BUILTIN))
    publisher.publish()
    with tracking.speaking() as client:
        client.delete_prompt_version(releases.name, str(two.version))
        client.delete_prompt_alias(releases.name, "champion")
    clock.now += WHOLE_S
    publisher.publish()
    assert sorted(files(tmp_path)) == [FILE_NAME, "releases/another@1.json", f"releases/{one.id}.json"]
    assert Follower(tmp_path, clock).champion() == one
    assert "MLflow names no champion" in str(publisher.status.error), "and it is said"
    with tracking.speaking() as client:
        client.delete_prompt(releases.name)
    before = files(tmp_path)
    clock.now += WHOLE_S
    publisher.publish()
    assert files(tmp_path) == before, "a registry that lost everything takes nothing from the gateways"


def test_a_version_that_was_changed_is_not_published(
    publisher: Publisher, releases: Releases, tracking: Tracking, tmp_path: Path, clock: Clock
) -> None:
    one, two = (releases.register(variant(number), "") for number in (1, 2))
    releases.promote(one)
    publisher.publish()
    before = files(tmp_path)
    with tracking.speaking() as client:
        client.set_prompt_version_tag(releases.name, one.version, "watchkeeper.policies", "{}")
        client.set_prompt_version_tag(releases.name, two.version, "watchkeeper.digest", "0" * 64)
    clock.now += WHOLE_S
    publisher.publish()
    assert files(tmp_path) == before
    said = publisher.status.error or ""
    assert one.id in said
    assert two.id in said
    assert "changed after it was registered" in said
    three = releases.register(variant(3), "")
    releases.promote(three)
    publisher.publish()
    assert Follower(tmp_path, clock).champion() == three, "the others are not held up"


def test_a_challenger_comes_with_its_share_and_goes_with_either(
    publisher: Publisher, releases: Releases, tracking: Tracking, tmp_path: Path, clock: Clock
) -> None:
    one, two, three = (releases.register(variant(number), "") for number in (1, 2, 3))

    def published() -> Challenger | None:
        publisher.publish()
        clock.now += 1
        found = Follower(tmp_path, clock).challenger()
        told = (publisher.status.challenger, publisher.status.share)
        assert told == ((found.release.id, found.share) if found else (None, 0.0))
        assert (tmp_path / CHALLENGER_FILE).exists() == (found is not None)
        return found

    releases.challenge(two, 0.1)
    assert published() is None, "there is no champion to serve beside"
    releases.promote(one)
    assert published() == Challenger(two, 0.1)
    releases.challenge(two, 0.2)
    assert published() == Challenger(two, 0.2), "a share alone is seen too"
    with tracking.speaking() as client:
        client.set_prompt_alias(releases.name, "challenger", three.version)
    assert published() is None, "an alias that is moved by hand has no share"
    assert f"{three.id} is the challenger in MLflow, but serves nobody" in str(publisher.status.error)
    releases.challenge(three, 0.3)
    assert published() == Challenger(three, 0.3)
    assert publisher.status.error is None
    releases.promote(three)
    assert published() is None, "the champion challenges nobody"
    releases.promote(one)
    with tracking.speaking() as client:
        client.set_prompt_version_tag(releases.name, three.version, "watchkeeper.policies", "{}")
    clock.now += WHOLE_S
    assert published() is None, "a release that was changed serves nobody"
    releases.challenge(two, 0.4)
    assert published() == Challenger(two, 0.4)
    releases.end_challenge()
    assert published() is None
    releases.end_challenge()
    with tracking.speaking() as client:
        client.set_prompt_alias(releases.name, "challenger", two.version)
    releases.end_challenge()
    assert published() is None
    assert [one.aliases for one in releases.all() if one.id == two.id] == [("challenger",)], (
        "a name that somebody gave stays"
    )
    assert two.id not in str(publisher.status.error), "and is no fault"


@pytest.mark.parametrize(
    "tag", ["{", "{}", '{"version": 2, "share": 0}', '{"version": 2, "share": 0.51}', '{"version": 2, "share": "x"}']
)
def test_a_share_that_is_none_lets_nobody_serve(
    publisher: Publisher, releases: Releases, tracking: Tracking, tmp_path: Path, tag: str
) -> None:
    one, two = (releases.register(variant(number), "") for number in (1, 2))
    releases.promote(one)
    releases.challenge(two, 0.5)
    publisher.publish()
    assert challenger(tmp_path) == Challenger(two, 0.5)
    with tracking.speaking() as client:
        client.set_prompt_tag(releases.name, "watchkeeper.canary", tag)
    publisher.publish()
    assert challenger(tmp_path) is None
    assert "serves nobody" in str(publisher.status.error)


def test_a_broken_file_is_written_again(publisher: Publisher, releases: Releases, tmp_path: Path, clock: Clock) -> None:
    one = releases.register(variant(1), "")
    releases.promote(one)
    (tmp_path / FILE_NAME).write_text("{broken")
    publisher.publish()
    assert Follower(tmp_path, clock).champion() == one


def test_with_mlflow_away_everything_stays_and_it_is_said_once(
    free_port: Callable[[], int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(msgspec.json.encode(variant(1)))
    before = files(tmp_path)
    stop = threading.Event()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            stop.set()

    away = Releases(Tracking(f"http://127.0.0.1:{free_port()}"), "watchkeeper")
    publisher = Publisher(away, tmp_path, stop, pause=pause)
    with caplog.at_level(logging.WARNING):
        publisher.run(once=False)
    assert len(pauses) == 3
    assert files(tmp_path) == before
    assert "MLflow does not answer" in (publisher.status.error or "")
    assert len([record for record in caplog.records if "releases stay as they were" in record.message]) == 1


def test_a_look_costs_less_than_half_a_request_of_mlflows_client(
    publisher: Publisher, releases: Releases, tracking: Tracking, bounded: Callable[..., None]
) -> None:
    """For the same versions. The first look loads the client, and is not counted."""
    for number in range(20):
        releases.register(variant(number), "")
    publisher.publish()
    named = f"name = '{releases.name}' AND tag.`mlflow.prompt.is_prompt` = 'true'"
    with tracking.speaking() as client:
        assert len(client.search_model_versions(named)) == 20
        bounded(publisher.publish, lambda: client.search_model_versions(named), times=0.5)
