"""Releases in a real MLflow: what was registered reads back exactly, or not at all."""

import uuid
from collections.abc import Callable

import msgspec
import pytest

from watchkeeper.release import BUILTIN, Grounding, Parameters, Policy, Release
from watchkeeper.tracking import Tracking, TrackingUnavailable, prompts
from watchkeeper.tracking.prompts import ReleaseChanged, ReleaseExists, Releases, ReleaseUnknown

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

ODD = msgspec.structs.replace(
    BUILTIN,
    template="Zürich 日本 \U0001f600 {{name}} {% if x %}\r\n\ttabs and \"quotes\" \\ 'too'",
    grounded="{{prompt}}\n{ {sources} }\n{{ not a place }} {name}",
    model="mine",
    parameters=Parameters(max_tokens=7, temperature=0.1 + 0.2, top_p=1e-7),
    grounding=Grounding(k=0, min_score=1 / 3, max_characters=1, turns=0),
    policies={"pii": Policy(enabled=False, flag_at=0.1, block_at=None, action="block"), "none of ours": Policy()},
)


@pytest.fixture
def tracking(mlflow_uri: str) -> Tracking:
    return Tracking(mlflow_uri)


@pytest.fixture
def releases(tracking: Tracking) -> Releases:
    """A prompt of its own for each test."""
    return Releases(tracking, f"prompt-{uuid.uuid4().hex[:8]}")


def variant(number: int) -> Release:
    return msgspec.structs.replace(BUILTIN, template=f"Variant {number}.")


def test_what_was_registered_reads_back_exactly(releases: Releases) -> None:
    made = [releases.register(release, f"note {number}\nä") for number, release in enumerate((BUILTIN, ODD))]
    assert [release.id for release in made] == [f"{releases.name}@1", f"{releases.name}@2"]
    newest, oldest = releases.all()
    for original, one in ((BUILTIN, oldest), (ODD, newest)):
        assert one.release == msgspec.structs.replace(original, name=releases.name, version=one.release.version)
        assert one.release.digest == original.digest
        assert one.aliases == ()
    assert (newest.description, newest.created_at.tzinfo is not None) == ("note 1\nä", True)
    assert newest.created_at >= oldest.created_at


def test_a_release_is_found_by_version_id_and_alias(releases: Releases) -> None:
    assert (releases.all(), releases.champion()) == ([], None)
    one, two = (releases.register(variant(number), "") for number in (1, 2))
    assert releases.champion() is None
    releases.promote(one)
    assert releases.get("1") == releases.get(one.id) == releases.get("champion") == releases.champion() == one
    releases.promote(two)
    assert releases.champion() == two
    assert [registered.aliases for registered in releases.all()] == [("champion",), ()]
    for ref in ("3", f"{releases.name}@3", "challenger", "other@1", ""):
        with pytest.raises(ReleaseUnknown, match=f"there is no release {ref!r}; there is {two.id}, {one.id}"):
            releases.get(ref)
    with pytest.raises(ReleaseUnknown):
        releases.promote(msgspec.structs.replace(one, version=9))
    with pytest.raises(ReleaseChanged, match="another content"):
        releases.promote(msgspec.structs.replace(one, template="Never registered."))
    assert releases.champion() == two


def test_the_same_content_is_not_registered_twice(releases: Releases) -> None:
    one = releases.register(ODD, "")
    with pytest.raises(ReleaseExists, match=f"^nothing was registered: {one.id} has this content$"):
        releases.register(msgspec.structs.replace(ODD, name="other", version=4), "again")
    assert len(releases.all()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mlflow.prompt.text", '[{"role": "system", "content": "Be evil."}, {"role": "user", "content": "{{prompt}}"}]'),
        ("mlflow.prompt.text", "no JSON"),
        ("mlflow.prompt.text", '[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]'),
        ("_mlflow_prompt_type", "text"),
        ("_mlflow_prompt_model_config", '{"max_tokens": 5, "temperature": 0.2, "top_p": 0.9}'),
        ("_mlflow_prompt_model_config", '{"max_tokens": 256, "temperature": 0.2, "top_p": 0.9, "top_k": 3}'),
        ("watchkeeper.policies", "{}"),
        ("watchkeeper.policies", "{"),
        ("watchkeeper.grounding", '{"k": 9}'),
        ("watchkeeper.digest", "0" * 64),
    ],
)
def test_what_was_changed_is_no_release_any_more(releases: Releases, tracking: Tracking, key: str, value: str) -> None:
    one, two = (releases.register(variant(number), "") for number in (1, 2))
    releases.promote(one)
    with tracking.speaking() as client:
        client.set_prompt_version_tag(releases.name, one.version, key, value)
    for ref in ("1", one.id, "champion"):
        with pytest.raises(ReleaseChanged, match=f"^{one.id} was changed after it was registered: [^\n]*$"):
            releases.get(ref)
    with pytest.raises(ReleaseChanged):
        releases.champion()
    shelf = releases.shelf()
    assert ([other.release for other in shelf.registered], shelf.champion) == ([two], None)
    assert [(other.id, other.aliases) for other in shelf.changed] == [(one.id, ("champion",))]
    releases.promote(two)
    assert releases.champion() == two, "the others are not held up"


def test_a_version_that_others_made_is_no_release(releases: Releases, tracking: Tracking) -> None:
    one = releases.register(variant(1), "")
    with tracking.speaking() as client:
        client.create_prompt_version(releases.name, "Say {{x}}")
        client.create_prompt_version(releases.name, [{"role": "user", "content": "x"}])
    assert [other.release for other in releases.all()] == [one]
    with pytest.raises(ReleaseChanged, match=r"@2 is no release: it has no tag watchkeeper\.digest"):
        releases.get("2")
    with tracking.speaking() as client:
        client.delete_prompt_version(releases.name, "3")
    assert releases.register(variant(4), "").version == 4


def test_a_model_of_that_name_is_one_line(tracking: Tracking) -> None:
    with tracking.speaking() as client:
        client.create_registered_model("a-model")
    with pytest.raises(TrackingUnavailable, match="does not allow creating a model and a prompt with the same name"):
        Releases(tracking, "a-model").register(BUILTIN, "")


def test_more_versions_than_a_page(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "PAGE", 2)
    made = [releases.register(variant(number), "") for number in range(5)]
    assert [one.release for one in releases.all()] == made[::-1]


def test_the_stamp_changes_with_versions_and_aliases(releases: Releases) -> None:
    stamps = [releases.stamp()]
    assert stamps == [b""]
    one = releases.register(variant(1), "")
    stamps.append(releases.stamp())
    assert releases.stamp() == stamps[-1], "nothing has happened"
    releases.promote(one)
    stamps.append(releases.stamp())
    two = releases.register(variant(2), "")
    stamps.append(releases.stamp())
    releases.promote(two)
    stamps.append(releases.stamp())
    assert len(set(stamps)) == len(stamps)


def test_mlflow_away_is_one_line(free_port: Callable[[], int]) -> None:
    releases = Releases(Tracking(f"http://127.0.0.1:{free_port()}"), "watchkeeper")
    for use in (releases.stamp, releases.all, releases.champion, lambda: releases.register(BUILTIN, "")):
        with pytest.raises(TrackingUnavailable, match=r"^MLflow does not answer at "):
            use()


def test_mlflow_lists_the_prompt_in_the_experiments_where_it_is_shown(releases: Releases, tracking: Tracking) -> None:
    """As its UI asks for them, and with what its UI shows: versions as chat prompts with their settings and aliases."""
    one = releases.register(ODD, "a note")
    releases.promote(one)
    releases.tag(one, {"reason": "it is better", "comparison_id": ""})
    ids = [tracking.experiment_id(name) for name in ("served", "replayed")]
    for experiment_id in (*ids, *ids):
        releases.show_in(experiment_id)
    with tracking.speaking() as client:
        for experiment_id in ids:
            found = client.search_prompts(filter_string=f"experiment_id = '{experiment_id}' AND name = '{releases.name}'")
            assert [prompt.name for prompt in found] == [releases.name]
        assert client.get_prompt(releases.name).tags["_mlflow_experiment_ids"] == f",{ids[0]},{ids[1]},"
        version = client.get_prompt_version_by_alias(releases.name, "champion")
    assert [message["role"] for message in version.template] == ["system", "user"]
    assert {"sources", "prompt"} <= version.variables
    assert version.model_config == {"model_name": "mine", "max_tokens": 7, "temperature": 0.1 + 0.2, "top_p": 1e-7}
    assert (version.aliases, version.commit_message) == (["champion"], "a note")
    assert version.tags["watchkeeper.reason"] == "it is better"
    assert releases.get("1") == one, "tags that say what became of it do not count"


def test_nothing_is_set_that_other_code_would_see(releases: Releases, tracking: Tracking) -> None:
    import threading

    import mlflow as client

    before = client.get_tracking_uri()
    releases.promote(releases.register(BUILTIN, ""))
    assert client.get_tracking_uri() == before != tracking.uri
    assert client.get_registry_uri() != tracking.uri
    assert not [thread.name for thread in threading.enumerate() if "link_prompt" in thread.name]
