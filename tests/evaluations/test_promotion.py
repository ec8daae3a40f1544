"""Promotion: what serves changes on the evidence of a gate, by override or by rollback, and the log says which."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from watchkeeper.lake.experiments import Trial, trial_rows
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.releases import Gate, Served, newest_gate, release_events, served
from watchkeeper.lake.tables import COMPARISONS
from watchkeeper.release import BUILTIN, FILE_NAME, Release
from watchkeeper.settings import Lake as LakeSection
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.prompts import ReleaseExists, ReleaseUnknown
from watchkeeper_evaluations.lock import alone
from watchkeeper_evaluations.promotion import (
    LOCK,
    Promotion,
    PromotionRefused,
    promote,
    register,
    releases_of,
    rollback,
    serving,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

NOW = datetime(2026, 5, 29, 12, tzinfo=UTC)


@pytest.fixture
def settings(mlflow_uri: str, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, mlflow=Mlflow(uri=mlflow_uri, prompt=f"w-{uuid.uuid4().hex[:8]}"))


def variant(number: int) -> Release:
    return msgspec.structs.replace(BUILTIN, template=f"Variant {number}.")


def registered(settings: Settings, count: int) -> list[Release]:
    """`count` releases after the first one, which is what served before."""
    return [register(settings, variant(number), "", "ann", NOW).release for number in range(count)]


def gate(settings: Settings, base: Release, candidate: Release, verdict: str, *, minutes: int = 0) -> str:
    at = NOW + timedelta(minutes=minutes)
    name = f"comparison-{verdict}-{minutes}"
    row = {"date": at.date(), "comparison_id": name, "compared_at": at, "verdict": verdict, "reason": "by the policy",
           "experiment_id": "experiment-1", "base_digest": base.digest, "candidate_digest": candidate.digest}  # fmt: skip
    trials = [
        Trial(
            experiment_id="experiment-1", started_at=NOW, ended_at=NOW, dataset="d", dataset_digest="d", release=release.id,
            digest=release.digest, n=1, failed=0, metrics={}, mlflow_run_id="run", mlflow_parent_id="parent",
        )
        for release in (base, candidate)
    ]  # fmt: skip
    Lake(settings.lake_uri).append("experiments", trial_rows(trials))
    Lake(settings.lake_uri).append("comparisons", pa.Table.from_pylist([row], schema=COMPARISONS))
    return name


def put(settings: Settings, release: Release, minute: int, *, override: str | None = "a test") -> Promotion:
    return promote(settings, release.id, reason="", override=override, by="ann", now=NOW + timedelta(minutes=minute))


def back(settings: Settings, minute: int, *, to: str | None = None) -> Promotion:
    return rollback(settings, to=to, reason="worse", by="bob", now=NOW + timedelta(minutes=minute))


def lose_the_alias(settings: Settings) -> None:
    with Tracking(settings.mlflow.uri).speaking() as client:
        client.delete_prompt_alias(settings.mlflow.prompt, "champion")


def history(settings: Settings) -> list[Served]:
    return served(Lake(settings.lake_uri))


def test_the_first_registration_registers_what_serves_as_the_champion(settings: Settings) -> None:
    handmade = Release(name="assistant", version=4, template="Made by hand.")
    (settings.data / FILE_NAME).write_bytes(msgspec.json.encode(handmade))
    done = register(settings, variant(1), "a note", "ann", NOW)
    name = settings.mlflow.prompt
    assert (done.release.id, done.first and done.first.id, done.untold) == (f"{name}@2", f"{name}@1", ())
    assert (done.first and done.first.digest, serving(settings).id) == (handmade.digest, f"{name}@1")
    events = release_events(Lake(settings.lake_uri)).to_pylist()
    assert [(event["event"], event["release"], event["by"]) for event in reversed(events)] == [
        ("registered", f"{name}@1", "ann"),
        ("promoted", f"{name}@1", "ann"),
        ("registered", f"{name}@2", "ann"),
    ]
    assert events[0]["reason"] == "a note"
    second = register(settings, variant(2), "", "ann", NOW)
    assert (second.release.id, second.first, serving(settings).id) == (f"{name}@3", None, f"{name}@1")


def test_registering_what_serves_first_of_all_registers_it_once(settings: Settings) -> None:
    done = register(settings, BUILTIN, "", "ann", NOW)
    assert done.release == done.first == serving(settings)
    assert len(releases_of(settings).all()) == 1
    with pytest.raises(ReleaseExists, match="@1 has this content"):
        register(settings, BUILTIN, "", "ann", NOW)


def test_mlflow_lists_the_releases_in_both_experiments(settings: Settings) -> None:
    (release,) = registered(settings, 1)
    tracking = Tracking(settings.mlflow.uri)
    with tracking.speaking() as client:
        for experiment in ("watchkeeper", "watchkeeper-experiments"):
            experiment_id = tracking.experiment_id(experiment, create=False)
            found = client.search_prompts(filter_string=f"experiment_id = '{experiment_id}' AND name = '{release.name}'")
            assert [prompt.name for prompt in found] == [release.name]


def test_nothing_is_promoted_without_a_passing_gate_against_what_serves(settings: Settings) -> None:
    one, two = registered(settings, 2)
    first = serving(settings)
    run = f"run: watchkeeper gate {first.id} {two.id} --policy FILE, or give --override REASON"
    with pytest.raises(PromotionRefused, match=f"^no gate has judged {two.id} against {first.id}, which serves; {run}$"):
        put(settings, two, 1, override=None)
    gate(settings, first, one, "pass")
    gate(settings, one, two, "pass")
    gate(settings, two, first, "pass")
    with pytest.raises(PromotionRefused, match="no gate has judged"):
        put(settings, two, 2, override=None)
    for minute, verdict in enumerate(("pass", "unknown", "fail")):
        gate(settings, first, two, verdict, minutes=minute)
    with pytest.raises(PromotionRefused, match=rf"^the gate said fail of {two.id} .*\(by the policy\); run: [^\n]*$"):
        put(settings, two, 3, override=None)
    assert serving(settings) == first
    passed = gate(settings, first, two, "pass", minutes=9)
    done = put(settings, two, 10, override=None)
    assert serving(settings) == two
    assert (done.changed, done.previous, done.comparison_id, done.override, done.untold) == (True, first, passed, False, ())
    newest = history(settings)[0]
    assert (newest.release, newest.previous, newest.comparison_id, newest.override) == (two.id, first.id, passed, False)
    with pytest.raises(PromotionRefused, match="no gate has judged"):
        put(settings, one, 11, override=None)


def test_an_override_is_kept_where_people_look(settings: Settings) -> None:
    (one,) = registered(settings, 1)
    failed = gate(settings, serving(settings), one, "fail")
    now = NOW + timedelta(minutes=1)
    done = promote(settings, "2", reason="asked for", override="the boss said so", by="ann", now=now)
    newest = history(settings)[0]
    assert (newest.override, newest.reason, newest.comparison_id) == (True, "asked for; the boss said so", failed)
    assert (newest.since, newest.by, newest.digest, done.override) == (now, "ann", one.digest, True)
    with Tracking(settings.mlflow.uri).speaking() as client:
        tags = client.get_prompt_version_by_alias(one.name, "champion").tags
    assert tags["watchkeeper.promoted_at"] == now.isoformat()
    assert (tags["watchkeeper.override"], tags["watchkeeper.comparison_id"]) == ("true", failed)
    assert tags["watchkeeper.reason"] == "asked for; the boss said so"


def test_promoting_what_serves_changes_nothing(settings: Settings) -> None:
    registered(settings, 1)
    first = serving(settings)
    before = history(settings)
    done = put(settings, first, 1, override=None)
    assert (done.changed, done.release) == (False, first)
    assert history(settings) == before


def test_without_an_alias_what_the_gateways_have_is_what_serves(settings: Settings) -> None:
    """And the same content under the registry's name needs no gate."""
    (one,) = registered(settings, 1)
    first = serving(settings)
    lose_the_alias(settings)
    assert serving(settings) == BUILTIN
    with pytest.raises(PromotionRefused, match="against builtin@0, which serves"):
        put(settings, one, 1, override=None)
    assert put(settings, first, 2, override=None).changed
    assert serving(settings) == first


def test_an_alias_that_was_lost_is_put_back(settings: Settings) -> None:
    """Gateways still have the release that it named, under that name."""
    registered(settings, 1)
    first = serving(settings)
    (settings.data / FILE_NAME).write_bytes(msgspec.json.encode(first))
    uses: list[Callable[[int], Promotion]] = [
        lambda minute: put(settings, first, minute, override=None),
        lambda minute: back(settings, minute, to=first.id),
    ]
    for minute, use in enumerate(uses, start=1):
        lose_the_alias(settings)
        assert serving(settings) == first
        assert use(minute).changed
        assert releases_of(settings).champion() == first
    with pytest.raises(PromotionRefused, match="nothing is known to have served before"):
        back(settings, 3)


def test_another_content_under_the_same_id_does_not_serve_already(settings: Settings) -> None:
    """As after an MLflow that was set up anew."""
    registered(settings, 1)
    first = serving(settings)
    lose_the_alias(settings)
    old = msgspec.structs.replace(first, template="What had this number before.")
    (settings.data / FILE_NAME).write_bytes(msgspec.json.encode(old))
    with pytest.raises(PromotionRefused, match="no gate has judged"):
        put(settings, first, 1, override=None)
    done = put(settings, first, 2)
    assert (done.changed, done.previous, serving(settings)) == (True, old, first)


def test_releases_change_one_at_a_time(settings: Settings) -> None:
    one, two = registered(settings, 2)
    first = serving(settings)
    uses: list[Callable[[], object]] = [
        lambda: register(settings, variant(9), "", "ann", NOW),
        lambda: put(settings, one, 1),
        lambda: back(settings, 2),
    ]
    for use in uses:
        before = history(settings), releases_of(settings).shelf()
        with ThreadPoolExecutor(1) as pool:
            with alone(settings.data, LOCK):
                changing = pool.submit(use)
                time.sleep(1)
                assert (history(settings), releases_of(settings).shelf()) == before
            changing.result()
        assert releases_of(settings).shelf() != before[1]
    for release in (one, two):
        gate(settings, first, release, "pass")
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(put, settings, release, 3, override=None) for release in (one, two)]
    (refused,) = [error for done in both if (error := done.exception())]
    assert isinstance(refused, PromotionRefused), refused
    assert f"against {serving(settings).id}, which serves" in str(refused)


def test_what_was_judged_against_must_serve_still(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody moves the alias in MLflow's UI, where no lock of ours holds, while the gate is looked up."""
    one, two = registered(settings, 2)
    first = serving(settings)
    gate(settings, first, one, "pass")

    def meanwhile(lake: Lake, base: str, candidate: str) -> Gate | None:
        releases_of(settings).promote(two)
        return newest_gate(lake, base, candidate)

    monkeypatch.setattr("watchkeeper_evaluations.promotion.newest_gate", meanwhile)
    before = history(settings)
    said = f"^{two.id} serves now, no longer {first.id}: nothing was changed, run it again$"
    with pytest.raises(PromotionRefused, match=said):
        put(settings, one, 1, override=None)
    assert (serving(settings), history(settings)) == (two, before)


def test_a_rollback_goes_back_one_champion_at_a_time(settings: Settings) -> None:
    one, two, three = registered(settings, 3)
    first = serving(settings)
    for minute, release in enumerate((one, two), start=1):
        put(settings, release, minute)
    done = back(settings, 3)
    assert (done.event, done.release, done.previous, serving(settings)) == ("rolled_back", one, two, one)
    newest = history(settings)[0]
    assert (newest.event, newest.release, newest.previous, newest.reason, newest.by) == (
        "rolled_back", one.id, two.id, "worse", "bob",
    )  # fmt: skip
    put(settings, three, 4)
    assert back(settings, 5).release == one, "not to the one that was rolled back"
    assert back(settings, 6).release == first
    with pytest.raises(
        PromotionRefused, match=f"^nothing is known to have served before {first.id}; name a release with --to$"
    ):
        back(settings, 7)
    assert back(settings, 8, to=two.id).release == two == serving(settings)
    assert back(settings, 9).release == first
    assert not back(settings, 10, to=first.id).changed


def test_a_champion_that_was_promoted_twice(settings: Settings) -> None:
    one, two = registered(settings, 2)
    first = serving(settings)
    for minute, release in enumerate((one, two, one), start=1):
        put(settings, release, minute)
    assert [back(settings, minute).release for minute in (4, 5, 6)] == [two, one, first]


def test_a_champion_that_was_moved_by_hand_rolls_back_to_what_the_log_knows(settings: Settings) -> None:
    one, two = registered(settings, 2)
    put(settings, one, 1)
    releases_of(settings).promote(two)
    assert back(settings, 2).release == one


def test_what_served_before_may_be_gone(settings: Settings) -> None:
    one, two = registered(settings, 2)
    put(settings, one, 1)
    put(settings, two, 2)
    with Tracking(settings.mlflow.uri).speaking() as client:
        client.delete_prompt_version(one.name, str(one.version))
    with pytest.raises(
        PromotionRefused, match=f"^{one.id} served before {two.id}, but MLflow has it no more; name one with"
    ):
        back(settings, 3)


def test_a_champion_that_was_changed_can_be_left(settings: Settings) -> None:
    """What serves is then the last good copy: the one that the gateways have."""
    one, two = registered(settings, 2)
    put(settings, one, 1)
    (settings.data / FILE_NAME).write_bytes(msgspec.json.encode(one))
    with Tracking(settings.mlflow.uri).speaking() as client:
        client.set_prompt_version_tag(one.name, one.version, "watchkeeper.policies", "{}")
    assert serving(settings) == one
    gate(settings, one, two, "pass")
    assert put(settings, two, 2, override=None).release == serving(settings) == two


def test_unknown_releases_are_one_line(settings: Settings) -> None:
    registered(settings, 1)
    uses: list[Callable[[], object]] = [lambda: put(settings, variant(9), 1), lambda: back(settings, 1, to="99")]
    for use in uses:
        with pytest.raises(ReleaseUnknown, match=r"^there is no release '[^\n]*$"):
            use()


def test_a_lake_that_cannot_be_written_is_told_and_the_promotion_stands(settings: Settings, tmp_path: Path) -> None:
    (one,) = registered(settings, 1)
    (tmp_path / "file").write_text("")
    broken = settings.model_copy(update={"lake": LakeSection(uri=str(tmp_path / "file" / "lake"))})
    done = put(broken, one, 1)
    assert serving(settings) == one
    assert done.changed
    (said,) = done.untold
    assert "the lake's log of releases does not say so" in said


def test_with_mlflow_away_nothing_is_done(settings: Settings, free_port: Callable[[], int]) -> None:
    away = settings.model_copy(update={"mlflow": Mlflow(uri=f"http://127.0.0.1:{free_port()}")})
    uses: list[Callable[[], object]] = [
        lambda: put(away, variant(1), 1),
        lambda: back(away, 1),
        lambda: register(away, variant(1), "", "ann", NOW),
    ]
    for use in uses:
        with pytest.raises(TrackingUnavailable, match=r"^MLflow does not answer at "):
            use()
    assert history(away) == []
