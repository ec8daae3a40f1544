"""Links into MLflow: known once its REST interface has answered, absent without it, and hardly waited for."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from watchkeeper.settings import Mlflow, Settings
from watchkeeper_dashboards.mlflow_links import ASK_AGAIN_S, MlflowLinks

EXPERIMENTS = {"watchkeeper": "7", "watchkeeper-jobs": "8", "watchkeeper-experiments": "9"}


class Answering(BaseHTTPRequestHandler):
    """The one question of MLflow's REST interface that we ask."""

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        name = parse_qs(asked.query).get("experiment_name", [""])[0]
        known = asked.path == "/api/2.0/mlflow/experiments/get-by-name" and name in EXPERIMENTS
        body = json.dumps({"experiment": {"experiment_id": EXPERIMENTS[name]}} if known else {"error_code": "x"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture
def mlflow() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def wait_for_questions() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("mlflow-links"):
            thread.join(5)


def links(uri: str, experiment: str = "watchkeeper", clock: list[float] | None = None) -> MlflowLinks:
    times = clock or [0.0]
    return MlflowLinks(Settings(mlflow=Mlflow(uri=uri, experiment=experiment)), lambda: times[0])


def test_the_experiments_are_asked_for_and_then_known(mlflow: str) -> None:
    known = links(mlflow)
    known.trace("a" * 32)
    known.run("r1")
    wait_for_questions()
    trace, run = known.trace("a" * 32), known.run("r1")
    assert trace is not None
    assert trace.startswith(f"{mlflow}/#/experiments/7/traces?")
    assert "tr-" + "a" * 32 in trace
    assert run == f"{mlflow}/#/experiments/8/runs/r1"


def test_an_experiment_that_comes_later_is_asked_for_again(mlflow: str) -> None:
    clock = [100.0]
    known = links(mlflow, "new", clock)
    assert known.trace("a" * 32) is None
    wait_for_questions()
    EXPERIMENTS["new"] = "9"
    try:
        assert known.trace("a" * 32) is None
        wait_for_questions()
        assert known.trace("a" * 32) is None
        clock[0] += ASK_AGAIN_S
        known.trace("a" * 32)
        wait_for_questions()
        assert known.trace("a" * 32) is not None
    finally:
        del EXPERIMENTS["new"]


def test_without_mlflow_there_is_no_link_and_no_error() -> None:
    known = links("http://127.0.0.1:9")
    assert known.trace("a" * 32) is None
    wait_for_questions()
    assert known.trace("a" * 32) is None
    assert known.home() == "http://127.0.0.1:9/"


def test_runs_of_experiments_have_an_experiment_of_their_own(mlflow: str) -> None:
    known = links(mlflow)
    known.experiment_run("r1")
    wait_for_questions()
    assert known.experiment_run("r1") == f"{mlflow}/#/experiments/9/runs/r1"


def test_a_trace_of_others_is_shown_in_their_experiment(mlflow: str) -> None:
    known = links(mlflow)
    known.trace("a" * 32, "watchkeeper-jobs")
    wait_for_questions()
    trace = known.trace("a" * 32, "watchkeeper-jobs")
    assert trace is not None
    assert trace.startswith(f"{mlflow}/#/experiments/8/traces?")
