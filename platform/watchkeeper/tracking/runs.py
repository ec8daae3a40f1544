"""The parts of a run as MLflow takes them: begun, given values and files, ended.

Long values are cut to what MLflow takes, characters that it refuses in names become `_`, metrics that are no finite number
are left out. Over a client that somebody else is speaking with; errors are the client's own.
"""

import json
import math
import re
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What every server of its versions 2 and 3 takes; newer ones take longer tags.
PARAM_LENGTH: Final = 6000
TAG_LENGTH: Final = 5000
KEY_LENGTH: Final = 250
PARAMS_A_BATCH: Final = 100
METRICS_A_BATCH: Final = 1000
_UNSPEAKABLE: Final = re.compile(r"[^\w\-. :/]", re.ASCII)


def begin(client: "MlflowClient", experiment_id: str, name: str, tags: Mapping[str, Any], at: datetime) -> str:
    """A run that is running; its id."""
    labels = {_key(key): _cut(value, TAG_LENGTH) for key, value in tags.items()}
    run = client.create_run(experiment_id, start_time=_ms(at), tags=labels, run_name=name)
    return str(run.info.run_id)


def end(client: "MlflowClient", run_id: str, status: Literal["FINISHED", "FAILED"], at: datetime) -> None:
    client.set_terminated(run_id, status=status, end_time=_ms(at))


def log_values(
    client: "MlflowClient", run_id: str, params: Mapping[str, Any], metrics: Mapping[str, float | None], at: datetime
) -> None:
    from mlflow.entities import Metric, Param

    settled = [Param(_key(key), _cut(value, PARAM_LENGTH)) for key, value in params.items()]
    numbers = [
        Metric(_key(key), float(value), _ms(at), 0)
        for key, value in metrics.items()
        if value is not None and math.isfinite(value)
    ]
    for start in range(0, len(settled), PARAMS_A_BATCH):
        client.log_batch(run_id, params=settled[start : start + PARAMS_A_BATCH])
    for start in range(0, len(numbers), METRICS_A_BATCH):
        client.log_batch(run_id, metrics=numbers[start : start + METRICS_A_BATCH])


def log_artifacts(client: "MlflowClient", run_id: str, artifacts: Mapping[str, bytes | str | dict[str, Any]]) -> None:
    if not artifacts:
        return
    with tempfile.TemporaryDirectory(prefix="watchkeeper-") as folder:
        for name, content in artifacts.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"an artifact's name is a relative path, not {name!r}")
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_bytes(content))
        client.log_artifacts(run_id, folder)


def _bytes(content: bytes | str | dict[str, Any]) -> bytes:
    if isinstance(content, bytes):
        return content
    text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace")


def _key(name: str) -> str:
    return _UNSPEAKABLE.sub("_", name)[:KEY_LENGTH]


def _cut(value: Any, length: int) -> str:
    return str(value)[:length]


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
