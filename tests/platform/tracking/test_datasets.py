"""MLflow's evaluation datasets as they are kept: one experiment's, by name, whole, and nothing of MLflow's own in them."""

from datetime import UTC, datetime, timedelta

import pytest

from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.datasets import PAGE, Datasets, Entry

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


def test_asking_makes_no_experiment_and_making_does(mlflow_uri: str) -> None:
    tracking = Tracking(mlflow_uri)
    datasets = Datasets(tracking, "new")
    assert (datasets.all(), datasets.find("any")) == ([], None)
    with pytest.raises(LookupError):
        tracking.experiment_id("new", create=False)
    made = datasets.create("any", {"owner": "us"})
    experiment = tracking.experiment_id("new", create=False)
    assert made.url == f"{mlflow_uri}/#/experiments/{experiment}/datasets/{made.dataset_id}"
    assert datasets.find("any") == made
    assert made.tags == {"owner": "us"}
    assert abs(made.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_name_is_looked_for_in_one_experiment_only(mlflow_uri: str) -> None:
    tracking = Tracking(mlflow_uri)
    here, there = Datasets(tracking, "here"), Datasets(tracking, "there")
    made = here.create("same", {})
    there.create("same", {})
    assert here.find("same") == made
    assert len(here.all()) == 1
    assert here.find("sam%") is None


def test_what_is_written_is_read_and_written_again_is_brought_up_to_date(mlflow_uri: str) -> None:
    datasets = Datasets(Tracking(mlflow_uri), "written")
    made = datasets.create("d", {})
    traced = Entry(inputs={"q": "a"}, tags={"k": "1"}, trace="ab" * 16, session="s")
    plain = Entry(inputs={"q": "b"}, expectations={"expected_response": "x"})
    datasets.write(made.dataset_id, [traced, plain])
    datasets.write(made.dataset_id, [Entry(inputs={"q": "a"}, expectations={"expected_response": "y"})])
    entries = {str(entry.inputs["q"]): entry for entry in datasets.read(made.dataset_id)}
    whole = Entry(inputs={"q": "a"}, expectations={"expected_response": "y"}, tags={"k": "1"}, trace="ab" * 16, session="s")
    assert entries == {"a": whole, "b": plain}
    datasets.tag(made.dataset_id, {"state": "done"})
    found = datasets.find("d")
    assert found is not None
    assert (found.count, found.tags) == (2, {"state": "done"})


def test_more_datasets_than_a_page_are_all_listed(mlflow_uri: str) -> None:
    datasets = Datasets(Tracking(mlflow_uri), "many")
    for number in range(PAGE + 2):
        datasets.create(f"d-{number:03d}", {})
    assert [stored.name for stored in datasets.all()] == [f"d-{number:03d}" for number in range(PAGE + 2)]


def test_what_the_server_refuses_is_one_line_without_the_records(mlflow_uri: str) -> None:
    with pytest.raises(TrackingUnavailable, match=r"did not take the records of dataset d-nothing: BAD_REQUEST$") as raised:
        Datasets(Tracking(mlflow_uri), "gone").write("d-nothing", [Entry(inputs={"q": "a secret"})])
    assert "\n" not in str(raised.value)
