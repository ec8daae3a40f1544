"""Experiments: the list, how two releases differ, the gate, and every case with both answers."""

from typing import Any

import pytest

from watchkeeper.lake.experiments import answers
from watchkeeper_dashboards import actions
from watchkeeper_dashboards.pages import experiment, experiment_cases, experiment_reference

ID = "experiment-20260110-1600"
BASE, CANDIDATE = "watchkeeper@1", "watchkeeper@2"


def look(reader: Any, search: str = "", experiment_id: str = ID) -> dict[str, Any]:
    response: dict[str, Any] = reader.fire(
        "experiment-body.children", experiment_id_data=experiment_id, experiment_url_search=search
    )["response"]
    return response


def test_the_list_has_a_row_an_experiment_with_its_gate(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    body = reader_of(house).fire("experiments-body.children", experiments_url_search="?range=6h")["response"]
    body = body["experiments-body"]["children"]
    words = read(body)
    assert {"10 Jan 16:00:30", "hard", f"{BASE}, {CANDIDATE}", "80", "1", "pass", ID} <= set(words)
    assert links(body) == [f"/experiments/{ID}?range=6h"]


def test_no_experiment_says_what_to_type(make_house: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(make_house([]))
    body = reader.fire("experiments-body.children")["response"]["experiments-body"]["children"]
    assert any("watchkeeper experiment run --dataset NAME" in word for word in read(body))
    missing = look(reader)
    assert "There is no such experiment" in read(missing["experiment-body"]["children"])
    assert missing["experiment-form"]["style"] == {"display": "none"}


def test_an_experiment_shows_differences_with_how_sure_they_are(house: Any, reader_of: Any, read: Any) -> None:
    words = read(look(reader_of(house))["experiment-body"]["children"])
    at = words.index("Grounded", words.index("Scores"))
    assert words[at : at + 10] == [
        "Grounded", "primary", "n = 39, 20 sessions", "41.0%", "73.0%", "+32.0 pt", "+18.0 pt to +45.0 pt", "17 / 18 / 4",
        "<0.001", "0.001",
    ]  # fmt: skip
    assert "+270 ms" in words
    assert {"better", "worse", "same", "unclear"} <= set(words)
    assert "every rule holds" in words
    assert "at worst −0.020" in words
    assert any("Failed answers: base 0, candidate 1" in word for word in words)


def test_a_mere_comparison_can_be_chosen_and_has_no_gate(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    body = look(reader_of(house), "?comparison=comparison-1")["experiment-body"]["children"]
    assert "Gate" not in read(body)
    assert f"/experiments/{ID}?comparison=comparison-2" in links(body)
    assert f"http://127.0.0.1:5000/#/experiments/3/runs/{'beef' * 8}" in links(body)


@pytest.mark.parametrize(("order", "sign"), [("worse", 1), ("better", -1)])
def test_cases_are_sorted_by_their_difference_and_a_failed_answer_stands_first(house: Any, order: Any, sign: int) -> None:
    found = experiment_cases.pairs(answers(house.lake, ID), BASE, CANDIDATE)
    assert len(found) == 40
    first, *rest = experiment_cases.ordered(found, "relevance", order)
    assert first.case_id.endswith("7")
    assert first.delta("relevance") is None
    changes = [pair.delta("relevance") or 0.0 for pair in rest]
    assert changes == sorted(changes, key=lambda change: sign * change)


def test_of_what_should_be_low_more_is_worse(house: Any) -> None:
    found = experiment_cases.pairs(answers(house.lake, ID), BASE, CANDIDATE)
    changes = [pair.delta("total_ms") or 0.0 for pair in experiment_cases.ordered(found, "total_ms", "worse")[1:]]
    assert changes == sorted(changes, reverse=True)


def test_the_cases_are_listed_by_what_the_url_says(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    below = look(reader_of(house), "?metric=total_ms&order=better")["experiment-cases"]["children"]
    words = read(below)
    assert "by total time, what became better first; a row opens both answers" in words
    assert "candidate failed" in words
    assert f"/experiments/{ID}?metric=total_ms&order=better&case=0000000000000003.0" in links(below)
    assert f"/experiments/{ID}?metric=grounded&order=better" in links(below)


def test_a_case_shows_both_answers_with_what_differs(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    response = look(reader_of(house), "?case=0000000000000003.0")
    body = response["experiment-body"]["children"]
    words = read(body)
    assert "a fortnight, I believe." in words
    assert "30 days; the label is in the parcel." in words
    assert any("<img src=x onerror=alert(1)> **bold**" in word for word in words)
    assert response["experiment-cases"]["children"] is None
    assert response["experiment-form"]["style"] == {"display": "none"}
    replays = {answer.request_id for answer in answers(house.lake, ID) if answer.case_id.endswith("3")}
    assert {f"/traces/{request_id}" for request_id in replays} & set(links(body))
    assert f"/experiments/{ID}" in links(body)


def test_a_failed_answer_says_why_there_is_none(house: Any, reader_of: Any, read: Any) -> None:
    words = read(look(reader_of(house), "?case=0000000000000007.0")["experiment-body"]["children"])
    assert "There is no answer: upstream_unavailable." in words
    assert "502, upstream_unavailable" in words
    missing = read(look(reader_of(house), "?case=nothing.0")["experiment-body"]["children"])
    assert "There is no such case in this comparison" in missing


def test_the_gate_is_our_own_command_and_a_no_is_an_answer() -> None:
    command = experiment.gating(ID, BASE, CANDIDATE)
    assert command.shown == f"watchkeeper gate {BASE} {CANDIDATE} --experiment {ID}"
    failed = actions.Outcome(command.shown, 1, {"verdict": "fail", "reason": "grounded fell"}, "grounded fell")
    shown = str(experiment.said(failed))
    assert "grounded fell" in shown
    assert "wk-done" not in shown
    assert "no verdict" in str(experiment.said(actions.Outcome("x", 2, None, None)))


def test_the_gate_needs_two_releases(house: Any, reader_of: Any, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "run", pytest.fail)
    answer = reader_of(house).fire(
        "experiment-said.children", experiment_gate_n_clicks=1, experiment_id_data=ID, experiment_base_value=BASE,
        experiment_candidate_value=BASE,
    )["response"]  # fmt: skip
    assert read(answer["experiment-said"]["children"]) == ["Choose two different releases."]


def test_the_expected_answer_is_looked_up_in_the_dataset() -> None:
    document = {"cases": [{"case_id": "c1", "reference": "<b>30 days</b>"}, {"case_id": "c2"}]}
    outcome = actions.Outcome("watchkeeper dataset show hard", 0, document)
    assert "<b>30 days</b>" in str(experiment_reference.expected(outcome, "c1"))
    assert "no expected answer" in str(experiment_reference.expected(outcome, "c2"))
    assert "any more" in str(experiment_reference.expected(outcome, "c3"))
    assert experiment_reference.case_of("?case=c1.0") == "c1"
    assert experiment_reference.case_of("?case=") is None
