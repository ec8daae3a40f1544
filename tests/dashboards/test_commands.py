"""The pages' actions with the real commands and a real MLflow: requests become cases, a gate judges, a release serves."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from watchkeeper.lake.experiments import comparisons, newest_trials
from watchkeeper.lake.interactions import to_arrow
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import Tracking, server_command
from watchkeeper.tracking.prompts import Releases
from watchkeeper_dashboards.actions import Command, run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def mlflow(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    data = tmp_path_factory.mktemp("mlflow")
    settings = Settings(data=data, mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, data)
    process = module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    yield settings.mlflow.uri
    process.stop()


@pytest.fixture
def own(mlflow: str, make_house: Any, traffic: Any) -> Any:
    """A lake with traffic and nothing else, beside that MLflow."""
    empty = make_house([])
    settings = empty.settings.model_copy(update={"mlflow": Mlflow(uri=mlflow)})
    records = traffic(30, 30)
    empty.lake.append("interactions", to_arrow(records))
    return type(empty)(empty.lake, settings, tuple(records))


def test_ticked_requests_become_cases_once(own: Any, reader_of: Any, read: Any) -> None:
    different = list({record.prompt_text: record.request_id for record in own.records if record.status == 200}.values())
    ticked: dict[str, Any] = {
        "traces_add_n_clicks": 1,
        "traces_dataset_value": "hard-cases",
        "traces_grid_selectedRows": [{"request_id": request_id} for request_id in different[:3]],
    }
    reader = reader_of(own)
    for counts in (
        ": 3 added, 0 already in it, 0 left out, 3 cases in all",
        ": 0 added, 3 already in it, 0 left out, 3 cases in all",
    ):
        assert read(said(reader, "traces-added", **ticked)) == [
            "hard-cases",
            counts,
            "watchkeeper dataset add hard-cases --create --ids -",
        ]


def said(reader: Any, where: str, **given: Any) -> Any:
    """Fires the action that answers in `where`; what it shows."""
    return reader.fire(f"{where}.children", **given)["response"][where]["children"]


def test_a_release_serves_when_a_gate_or_a_reason_lets_it(
    own: Any, reader_of: Any, read: Any, links: Any, replay: Any
) -> None:
    better = own.settings.data / "better.toml"
    better.write_text('template = "Answer in one sentence."\n')
    registered = run(own.settings, Command("release register", (str(better),), {"--note": "one sentence"}))
    assert registered["release"] == "watchkeeper@2", registered.error
    kept = Releases(Tracking(own.settings.mlflow.uri), own.settings.mlflow.prompt)
    replay(own.lake, [kept.get(f"watchkeeper@{version}").digest for version in (1, 2)])
    reader = reader_of(own)
    (experiment_id,) = {trial.experiment_id for trial in newest_trials(own.lake)}

    judged = said(
        reader, "experiment-said", experiment_gate_n_clicks=1, experiment_id_data=experiment_id,
        experiment_base_value="watchkeeper@1", experiment_candidate_value="watchkeeper@2",
    )  # fmt: skip
    (gate,) = comparisons(own.lake)
    assert gate.verdict == "unknown"  # nobody has scored how toxic the answers are
    assert read(judged)[:2] == ["unknown", f" {gate.reason}"]
    assert "Gate" in read(said(reader, "experiment-body", experiment_id_data=experiment_id))

    promote = {
        "releases_do_n_clicks": 1,
        "releases_url_search": "?promote=watchkeeper@2",
        "releases_reason_value": "better",
    }
    refused = said(reader, "releases-said", **promote)
    assert "--override" in read(refused)[0]
    done = said(reader, "releases-said", **promote, releases_override_value="it is urgent")
    assert read(done)[:2] == ["watchkeeper@2", " serves. Gateways follow within five seconds."]
    body = said(reader, "releases-body")
    assert "better; it is urgent" in read(body)
    assert f"/experiments/{experiment_id}?comparison={gate.comparison_id}" in links(body)

    rollback = {"releases_do_n_clicks": 1, "releases_url_search": "?rollback=1", "releases_reason_value": "worse"}
    assert read(said(reader, "releases-said", **rollback))[0] == "watchkeeper@1"
