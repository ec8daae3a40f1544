"""Cases replayed through the real loop, against upstreams that say what they are told to."""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from watchkeeper.record import Message, Record
from watchkeeper.release import BUILTIN, Parameters, Policy, Release
from watchkeeper.settings import Encoder, Knowledge, Settings, Stages, Upstream
from watchkeeper_evaluations.dataset import Case
from watchkeeper_evaluations.replay import ReplayImpossible, order, replay

TERSE = msgspec.structs.replace(BUILTIN, name="watchkeeper", version=1, template="Be terse.")
WORDY = msgspec.structs.replace(TERSE, version=2, template="Be wordy.", parameters=Parameters(max_tokens=99))
CASES = tuple(Case(messages=(Message("user", f"question {n}"),), session=f"session {n % 2}") for n in range(6))
TAGS = {"experiment": "experiment-1", "dataset": "billing"}


def settings_for(tmp_path: Path, *upstreams: Any, **more: Any) -> Settings:
    """No encoder: what is tested here does not need one."""
    given = tuple(
        Upstream(name=f"upstream-{number}", base_url=upstream.url, model="scripted")
        for number, upstream in enumerate(upstreams)
    )
    settings = Settings(data=tmp_path, upstreams=given, stages=Stages(embed=False))
    return settings.model_copy(update=more)


def put(settings: Settings, cases: Any = CASES, releases: Any = (TERSE, WORDY), **more: Any) -> list[Record]:
    return replay(settings, cases, releases, tags=TAGS, rng=random.Random(1), **more)


def test_every_case_is_answered_by_every_release(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    upstream = upstreams()
    upstream.say = lambda messages: [messages[0]["content"], " ", messages[-1]["content"]]
    seen: list[tuple[int, int]] = []
    records = put(settings_for(tmp_path, upstream), progress=lambda done, total: seen.append((done, total)))
    assert Counter((record.release, record.tags["case"]) for record in records) == {
        (release.id, case.case_id): 1 for release in (TERSE, WORDY) for case in CASES
    }
    assert seen == [(done, 12) for done in range(1, 13)]
    said = {(record.release, record.tags["case"]): record.output_text for record in records}
    assert said[WORDY.id, CASES[3].case_id] == "Be wordy. question 3"
    assert {body["max_tokens"] for body in upstream.bodies} == {99, 256}
    record = records[0]
    assert (record.source, record.session, record.digest) == ("replay", "session 0", TERSE.digest)
    assert record.tags == TAGS | {"case": CASES[0].case_id}
    assert (record.status, record.error, record.input_tokens) == (200, None, 10)
    assert record.total_ms > 0
    assert len({record.request_id for record in records}) == 12


def test_nothing_is_remembered_or_spooled(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    put(settings_for(tmp_path, upstreams()))
    # The key of the redactor's hashes, and nothing that was said.
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["redaction.key"]


def test_a_conversation_is_asked_whole(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    upstream = upstreams()
    talk = (Message("user", "first"), Message("assistant", "yes?"), Message("user", "and then"))
    put(settings_for(tmp_path, upstream), [Case(messages=talk, session="s")], [TERSE])
    assert upstream.bodies[0]["messages"][1:] == list(msgspec.to_builtins(talk))


def test_releases_take_turns_and_the_first_one_changes() -> None:
    asked = [(each.case.case_id, each.release.version) for each in order(CASES[:2], (TERSE, WORDY), repeats=2)]
    first, second = (case.case_id for case in CASES[:2])
    assert asked == [(first, 1), (first, 2), (second, 2), (second, 1), (first, 2), (first, 1), (second, 1), (second, 2)]


def test_a_slow_time_hits_all_releases_alike(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    """The upstream sees the releases case by case, not one release after the other."""
    upstream = upstreams()
    put(settings_for(tmp_path, upstream), concurrency=1)
    prompts = [body["messages"][0]["content"] for body in upstream.bodies]
    assert all(set(prompts[at : at + 2]) == {"Be terse.", "Be wordy."} for at in range(0, 12, 2))


def test_repeats_are_told_apart(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    records = put(settings_for(tmp_path, upstreams()), CASES[:1], [TERSE], repeats=3)
    assert [record.tags["repeat"] for record in records] == ["0", "1", "2"]


def test_no_more_are_asked_at_once_than_told(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    upstream = upstreams()
    at_once: list[int] = []
    running: Counter[str] = Counter()

    def say(messages: list[dict[str, Any]]) -> list[str]:
        running["now"] += 1
        at_once.append(running["now"])
        time.sleep(0.05)
        running["now"] -= 1
        return ["ok"]

    upstream.say = say
    put(settings_for(tmp_path, upstream), concurrency=3)
    assert max(at_once) == 3


def test_an_answer_that_never_came_is_a_record(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    upstream = upstreams()
    upstream.status = 503
    records = put(settings_for(tmp_path, upstream), CASES[:2])
    assert {(record.status, record.error, record.output_text) for record in records} == {(502, "upstream_error", "")}
    assert {record.release for record in records} == {TERSE.id, WORDY.id}
    assert all(record.session and record.tags["case"] for record in records)


def test_one_that_takes_too_long_is_a_record(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    upstream = upstreams()
    upstream.pause_s = 1.0
    (record,) = put(settings_for(tmp_path, upstream), CASES[:1], [TERSE], answer_s=0.2)
    assert (record.status, record.error) == (504, "replay_timeout")


def test_a_blocked_prompt_is_a_record_and_no_error(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    upstream = upstreams()
    strict = msgspec.structs.replace(TERSE, policies={"pii": Policy(action="block")})
    case = Case(messages=(Message("user", "write to ann@example.com"),))
    (record,) = put(settings_for(tmp_path, upstream), [case], [strict])
    assert (record.status, record.error, record.action) == (400, None, "block")
    assert "ann@example.com" not in record.prompt_text
    assert upstream.bodies == []


def test_a_release_for_one_upstream_is_answered_by_it(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    first, second = upstreams(), upstreams()
    bound = msgspec.structs.replace(TERSE, version=3, model="upstream-1")
    records = put(settings_for(tmp_path, first, second), CASES, [bound])
    assert {record.upstream for record in records} == {"upstream-1"}
    assert (len(first.bodies), len(second.bodies)) == (0, 6)


def test_without_the_knowledge_base_nothing_is_asked(
    tmp_path: Path, upstreams: Callable[[], Any], free_port: Callable[[], int]
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "bills.md").write_text("# Bills\n\nBills are paid within thirty days of their date.\n")
    upstream = upstreams()
    away = Encoder(base_url=f"http://127.0.0.1:{free_port()}/v1")  # nobody has vectors to give
    settings = settings_for(tmp_path / "data", upstream, knowledge=Knowledge(folders=(folder,)), encoder=away)
    with pytest.raises(ReplayImpossible, match=r"^the knowledge base is not indexed after 0.5 s"):
        put(settings, knowledge_s=0.5)
    assert upstream.bodies == []


def test_an_encoder_that_is_away_is_said_before_the_first_case(
    tmp_path: Path, upstreams: Callable[[], Any], free_port: Callable[[], int]
) -> None:
    away = Encoder(base_url=f"http://127.0.0.1:{free_port()}/v1")
    upstream = upstreams()
    with pytest.raises(ReplayImpossible, match="the encoder does not answer at http"):
        put(settings_for(tmp_path, upstream, stages=Stages(), encoder=away))
    assert upstream.bodies == []


def test_an_upstream_that_is_not_set_is_said_before_the_first_case(tmp_path: Path, upstreams: Callable[[], Any]) -> None:
    bound: Release = msgspec.structs.replace(TERSE, model="big")
    with pytest.raises(ReplayImpossible, match="watchkeeper@1 is for the upstream 'big', which is not set; there is up"):
        put(settings_for(tmp_path, upstreams()), CASES, [bound])
