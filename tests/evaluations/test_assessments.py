"""Flagged scores become assessments on real traces: the worst, once, and what has no trace yet another time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import requests

from watchkeeper.lake.interactions import microseconds, score_rows
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.tracking import Tracking, TrackingUnavailable, server_command
from watchkeeper.tracking.assessments import Assessments
from watchkeeper_evaluations.assessments import MOST, Assessed, assess
from watchkeeper_evaluations.scorer import Score
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Judged:
    """A scorer whose scores are in the lake already."""

    scores: Sequence[Score]
    name: str = "judge"
    version: str = "1"
    source: str = "a test"
    columns: Sequence[str] = ()

    def score(self, batch: pa.Table) -> Sequence[Mapping[str, float]]:
        return [{}] * batch.num_rows


@pytest.fixture(scope="module")
def mlflow(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Tracking:
    settings = Settings(data=tmp_path_factory.mktemp("mlflow"), mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, settings.data)
    module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    return Tracking(settings.mlflow.uri)


class House:
    """A lake with scores, and traces of an MLflow; `first` sets the ids of one test apart from those of another."""

    def __init__(self, folder: Path, mlflow: Tracking, first: int) -> None:
        self.lake = Lake(str(folder))
        self.mlflow = mlflow
        self._first = first

    def id(self, number: int) -> str:
        return f"{self._first + number:032x}"

    def send(self, numbers: Sequence[int]) -> None:
        records = [Record(request_id=self.id(number), received_at=microseconds(NOON), total_ms=1.0) for number in numbers]
        headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": self.mlflow.experiment_id("t")}
        answer = requests.post(f"{self.mlflow.uri}/v1/traces", export_request(records), headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text

    def say(self, name: str, values: Mapping[int, float | bool], version: str = "1", **options: Any) -> None:
        """Scores by number of the request; each was received that many seconds after noon."""
        rows = pa.table(
            {
                "request_id": [self.id(number) for number in values],
                "received_at": pa.array(
                    [NOON + timedelta(seconds=number) for number in values], pa.timestamp("us", tz="UTC")
                ),
            }
        )
        scores = score_rows(
            rows, name, list(values.values()), scorer="judge", scorer_version=version, scored_at=NOON, **options
        )
        self.lake.append("scores", scores)

    def assess(self, *scores: Score, version: str = "1") -> Assessed:
        return assess(
            self.lake, Assessments(self.mlflow), [Judged(scores, version=version)], WINDOW, evaluation_id="e-1", at=NOON
        )

    def found(self, number: int) -> list[Any]:
        with self.mlflow.speaking() as client:
            return list(client.get_trace(f"tr-{self.id(number)}").info.assessments)


@pytest.fixture
def house(tmp_path: Path, mlflow: Tracking, request: pytest.FixtureRequest) -> House:
    return House(tmp_path, mlflow, hash(request.node.name) % 2**62 << 32)


TOXIC = Score("toxic", better="lower", flag_from=0.5)
GROUNDED = Score("grounded", kind="assertion", better="higher", flag_below=0.5)
SIZE = Score("size", low=-10, high=10, flag_from=5.0, flag_below=-5.0)


def test_what_is_flagged_is_on_its_trace_with_the_reason_and_the_rest_is_not(house: House) -> None:
    house.send(range(4))
    house.say("toxic", {0: 0.49, 1: 0.5, 2: 0.9}, explanations=[None, "mild", "vile"])
    house.say("grounded", {3: False, 2: True})
    house.say("toxic", {3: 0.99}, replay=True)
    house.say("unflagged", {0: 1.0})
    assert house.assess(TOXIC, GROUNDED, Score("unflagged")) == Assessed(made=3, left=0)
    (one,) = house.found(2)
    assert (one.name, one.value, one.rationale) == ("toxic", 0.9, "vile")
    assert (one.source.source_type, one.source.source_id) == ("CODE", "judge@1")
    assert one.metadata == {"watchkeeper.scorer": "judge@1", "watchkeeper.evaluation_id": "e-1"}
    assert [(one.name, one.value) for one in house.found(3)] == [("grounded", False)]
    assert house.found(0) == []


def test_again_nothing_is_doubled_and_a_new_version_speaks_for_itself(house: House) -> None:
    house.send([0])
    house.say("toxic", {0: 0.8, 1: 0.9})
    assert house.assess(TOXIC) == Assessed(made=1, left=1), "one trace is still on its way"
    house.send([1])
    assert house.assess(TOXIC) == Assessed(made=1, left=0)
    assert house.assess(TOXIC) == Assessed(made=0, left=0)
    house.say("toxic", {0: 0.7}, version="2")
    assert house.assess(TOXIC, version="2") == Assessed(made=1, left=0)
    assert [one.source.source_id for one in house.found(0)] == ["judge@1", "judge@2"]


def test_the_worst_of_all_scores_come_first_and_no_more_than_the_most(house: House) -> None:
    numbers = range(MOST + 20)
    house.send(numbers)
    house.say("toxic", {number: 0.5 + number / 1000 for number in numbers})
    house.say("grounded", {0: False})
    house.say("size", {1: 9.9, 2: -9.9, 3: 5.0, 4: 0.0})
    assert house.assess(TOXIC, GROUNDED, SIZE) == Assessed(made=MOST, left=0)
    assert [one.name for one in house.found(0)] == ["grounded"], "of its two the worse"
    assert [house.found(number)[0].name for number in (1, 2)] == ["size", "size"]
    assert [house.found(number) for number in (3, 4, 22)] == [[], [], []]
    assert house.found(MOST + 19)[0].value == pytest.approx(0.5 + (MOST + 19) / 1000)


def test_with_mlflow_away_it_says_so_and_what_is_not_flagged_asks_nobody(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    house = House(tmp_path, Tracking(f"http://127.0.0.1:{free_port()}"), 1)
    house.say("toxic", {0: 0.1})
    assert house.assess(TOXIC) == Assessed(made=0, left=0)
    house.say("toxic", {1: 0.9})
    with pytest.raises(TrackingUnavailable, match="cannot be reached"):
        house.assess(TOXIC)
