"""Datasets on a real MLflow: each case once, references filled in, frozen for good, and nothing lost by two at once."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.record import Message
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import Tracking, TrackingUnavailable, server_command
from watchkeeper.tracking.datasets import Datasets, Entry
from watchkeeper_evaluations.dataset import (
    Case,
    DatasetChanged,
    DatasetError,
    DatasetExists,
    DatasetFrozen,
    DatasetUnknown,
    add,
    create,
    freeze,
    listed,
    load,
)
from watchkeeper_evaluations.dataset.case import digest
from watchkeeper_evaluations.dataset.dataset import ERASED, home, made_of, merged, without

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def settings(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    data = tmp_path_factory.mktemp("data")
    settings = Settings(data=data, mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, data)
    process = module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    yield settings
    process.stop()


@pytest.fixture
def tracking(settings: Settings) -> Tracking:
    return Tracking(settings.mlflow.uri)


def case(asked: str, reference: str | None = None, **more: Any) -> Case:
    return Case(messages=(Message("user", asked),), reference=reference, **more)


def test_what_is_stored_is_what_is_loaded(tracking: Tracking, settings: Settings) -> None:
    whole = Case(
        messages=(
            Message("system", "Be kind."),
            Message("user", "Hi"),
            Message("assistant", "Hello"),
            Message("user", "Ünd?"),
        ),
        reference="That is all.",
        request_id="ab" * 16,
        session="s-1",
        tags={"kind": "billing"},
    )
    made = create(tracking, settings, "round", [whole, case("What is left?")], tags={"owner": "us"})
    found = load(tracking, settings, "round")
    assert (made.added, made.filled, made.already) == (2, 0, 0)
    assert found == made.dataset
    assert {each.case_id: each for each in found.cases} == {each.case_id: each for each in (whole, case("What is left?"))}
    assert (found.digest, found.frozen, found.tags) == (digest([case("What is left?"), whole]), False, {"owner": "us"})


def test_another_process_sees_the_records_through_mlflows_own_interface(tracking: Tracking, settings: Settings) -> None:
    cases = [case(f"question {number}", request_id=f"{number:032x}", session="s") for number in range(1101)]
    made = create(tracking, settings, "seen", [*cases, case("by hand", "yes")])
    code = """
import json, sys
import mlflow.genai.datasets
[found] = mlflow.genai.datasets.search_datasets(filter_string="name = 'seen'")
rows = mlflow.genai.datasets.get_dataset(dataset_id=found.dataset_id).to_df().to_dict("records")
traced = [row for row in rows if row["source_type"] == "TRACE"]
[by_hand] = [row for row in rows if row["source_type"] == "HUMAN"]
print(json.dumps([len(rows), max(row["source_id"] for row in traced), traced[0]["source"].source_data["session_id"],
                  by_hand["inputs"], by_hand["expectations"]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"MLFLOW_TRACKING_URI": settings.mlflow.uri, "PATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    asked = {"messages": [{"role": "user", "content": "by hand"}]}
    assert json.loads(done.stdout) == [1102, f"tr-{1100:032x}", "s", asked, {"expected_response": "yes"}]
    assert len(load(tracking, settings, "seen").cases) == 1102  # more than a page
    assert made.dataset.url.endswith(f"/datasets/{made.dataset.dataset_id}")


def test_a_case_is_there_once_and_a_missing_reference_is_filled_in(tracking: Tracking, settings: Settings) -> None:
    first = case("When?", request_id="cd" * 16, tags={"kind": "first"})
    create(tracking, settings, "once", [first, case("Where?"), case("Where?")])
    again = add(tracking, settings, "once", [case("When?", "Now."), case("Where?"), case("Who?"), case("Who?", "You.")])
    assert (again.added, again.filled, again.already) == (1, 1, 2)
    found = {each.prompt: each for each in load(tracking, settings, "once").cases}
    assert found["When?"] == case("When?", "Now.", request_id="cd" * 16, tags={"kind": "first"})
    assert (found["Where?"].reference, found["Who?"].reference) == (None, "You.")


def test_a_reference_is_never_replaced(tracking: Tracking, settings: Settings) -> None:
    create(tracking, settings, "held", [case("When?", "Now.")])
    with pytest.raises(DatasetError, match="1 cases have another reference answer") as raised:
        add(tracking, settings, "held", [case("Who?"), case("When?", "Later.")])
    assert case("When?").case_id in str(raised.value)
    assert load(tracking, settings, "held").cases == (case("When?", "Now."),)
    with pytest.raises(DatasetError, match="another reference"):
        merged([case("a", "1"), case("a", "2")], {})


def test_a_frozen_dataset_takes_nothing_and_freezing_again_changes_nothing(tracking: Tracking, settings: Settings) -> None:
    made = create(tracking, settings, "ice", [case("When?"), case("Who?")], frozen=True).dataset
    assert made.frozen
    assert freeze(tracking, settings, "ice") == made == load(tracking, settings, "ice")
    with pytest.raises(DatasetFrozen, match="'ice' is frozen"):
        add(tracking, settings, "ice", [case("Where?")])
    [found] = [each for each in listed(tracking, settings) if each.name == "ice"]
    assert (found.cases, found.frozen, found.tags, found.url) == (2, made.digest, {}, made.url)


@pytest.mark.parametrize(
    "change",
    [
        Entry(inputs={"messages": [{"role": "user", "content": "smuggled"}]}),
        Entry(inputs={"messages": [{"role": "user", "content": "When?"}]}, expectations={"expected_response": "else"}),
    ],
)
def test_a_frozen_dataset_that_was_changed_is_an_error(tracking: Tracking, settings: Settings, change: Entry) -> None:
    name = f"melted-{len(change.expectations)}"
    made = create(tracking, settings, name, [case("When?", "Now.")], frozen=True).dataset
    Datasets(tracking, home(settings)).write(made.dataset_id, [change])
    for act in (load, freeze):
        with pytest.raises(DatasetChanged, match="was changed after it was frozen"):
            act(tracking, settings, name)


@pytest.mark.parametrize(
    "inputs",
    [
        {"question": "by someone else"},
        {"messages": "When?"},
        {"messages": [{"role": "user", "content": "When?"}], "persona": "x"},
        {"messages": [{"role": "user", "content": "When?", "name": "x"}]},
        {"messages": [{"role": "assistant", "content": "Now."}]},
    ],
)
def test_a_record_that_is_no_case_is_said(
    tracking: Tracking, settings: Settings, inputs: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    name = f"foreign-{request.node.callspec.indices['inputs']}"
    made = create(tracking, settings, name, [case("When?")]).dataset
    Datasets(tracking, home(settings)).write(made.dataset_id, [Entry(inputs=inputs)])
    with pytest.raises(DatasetError, match=f"'{name}' holds a record that is no case"):
        load(tracking, settings, name)


def test_names_that_are_not_there_are_there_or_cannot_be(tracking: Tracking, settings: Settings) -> None:
    create(tracking, settings, "taken")
    with pytest.raises(DatasetExists, match="watchkeeper dataset add taken"):
        create(tracking, settings, "taken")
    with pytest.raises(DatasetUnknown, match=r"no dataset 'missing'; there is .*taken"):
        add(tracking, settings, "missing", [case("When?")])
    for name in ("", "a b", "x' OR name != '", "-x", "x" * 101):
        with pytest.raises(DatasetError, match="a dataset's name is"):
            load(tracking, settings, name)
    with pytest.raises(DatasetError, match="no cases"):
        freeze(tracking, settings, "taken")
    assert add(tracking, settings, "asked-for", [case("When?")], make=True).added == 1


def test_two_datasets_of_one_name_are_an_error_not_a_guess(tracking: Tracking, settings: Settings) -> None:
    create(tracking, settings, "twin")
    Datasets(tracking, home(settings)).create("twin", {})
    with pytest.raises(TrackingUnavailable, match="several datasets 'twin'; delete all but one: d-"):
        load(tracking, settings, "twin")


def test_two_processes_that_add_at_once_lose_nothing(tracking: Tracking, settings: Settings, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from watchkeeper.record import Message
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import Tracking
from watchkeeper_evaluations.dataset import Case, add
settings = Settings(data=Path(sys.argv[1]), mlflow=Mlflow(uri=sys.argv[2]))
for start in range(0, 60, 20):
    cases = [Case(messages=(Message("user", f"{sys.argv[3]} {number}"),)) for number in range(start, start + 20)]
    shared = Case(messages=(Message("user", "shared"),), reference=sys.argv[3] if start == 20 else None)
    try:
        add(Tracking(settings.mlflow.uri), settings, "busy", [*cases, shared], make=True)
    except Exception as error:
        print(type(error).__name__)
        add(Tracking(settings.mlflow.uri), settings, "busy", cases)
"""
    argv = [sys.executable, "-c", code, str(settings.data), settings.mlflow.uri]
    both = [subprocess.Popen([*argv, word], stdout=subprocess.PIPE, text=True) for word in ("left", "right")]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    cases = {each.prompt: each for each in load(tracking, settings, "busy").cases}
    assert set(cases) == {"shared", *(f"{word} {number}" for word in ("left", "right") for number in range(60))}
    # Whoever came second was told so: the two references contradict each other.
    assert sorted(said) == ["", "DatasetError\n"]


def test_with_mlflow_away_it_is_one_line(settings: Settings, free_port: Callable[[], int]) -> None:
    away = Tracking(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        load(away, settings, "any")


def test_erased_cases_leave_a_frozen_dataset_frozen_with_a_digest_of_its_own(
    tracking: Tracking, settings: Settings
) -> None:
    ids = [f"{number:032x}" for number in range(5000, 5004)]
    asked = [case(f"Of whom is {name}?", request_id=name, session="s") for name in ids]
    before = create(tracking, settings, "erased-frozen", [*asked, case("By hand")], frozen=True).dataset
    create(tracking, settings, "erased-open", asked[:2])
    create(tracking, settings, "erased-whole", asked[:1], frozen=True)
    assert made_of(tracking, settings, ids[:1]) == {asked[0].case_id}
    assert without(tracking, settings, set(ids[:1])) == 3
    after = load(tracking, settings, "erased-frozen")
    assert after.frozen
    assert [one.prompt for one in after.cases if one.request_id == ids[0]] == []
    assert (len(after.cases), after.digest != before.digest, after.tags) == (4, True, {})
    stored = Datasets(tracking, home(settings)).find("erased-frozen")
    assert stored is not None
    assert stored.tags[ERASED] == before.digest
    assert len(load(tracking, settings, "erased-open").cases) == 1
    assert not load(tracking, settings, "erased-whole").frozen, "there is nothing left that could be changed"
    assert without(tracking, settings, set(ids[:1])) == 0


def test_an_erasure_that_was_cut_off_is_no_change_that_somebody_made(
    tracking: Tracking, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{number:032x}" for number in range(6000, 6003)]
    create(tracking, settings, "cut-off", [case(f"Cut {name}?", request_id=name) for name in ids], frozen=True)
    create(tracking, settings, "changed", [case(f"Changed {name}?", request_id=name) for name in ids], frozen=True)
    datasets = Datasets(tracking, home(settings))
    changed = datasets.find("changed")
    assert changed is not None
    datasets.write(changed.dataset_id, [Entry(inputs={"messages": [{"role": "user", "content": "Slipped in"}]})])
    remove = Datasets.remove

    def cut_off(self: Datasets, dataset_id: str, traces: Any) -> Any:
        remove(self, dataset_id, traces)
        raise KeyboardInterrupt

    for _ in range(2):  # one dataset is come to after the other
        with monkeypatch.context() as patched:
            patched.setattr(Datasets, "remove", cut_off)
            with pytest.raises(KeyboardInterrupt):
                without(tracking, settings, {ids[0]})
    without(tracking, settings, {ids[0]})
    assert len(load(tracking, settings, "cut-off").cases) == 2
    with pytest.raises(DatasetChanged):
        load(tracking, settings, "changed")
