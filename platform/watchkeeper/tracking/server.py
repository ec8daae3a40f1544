"""The MLflow server that `up` starts: one worker on SQLite, everything under the data folder."""

import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from watchkeeper.settings import Settings
from watchkeeper.tracking import garbage

FOLDER: Final = "mlflow"
DATABASE: Final = "mlflow.db"
BEHIND: Final = ("nice", "-n", "5") if shutil.which("nice") else ()
"""Before the command of whatever nobody waits for: where processors are few, those who wait for an answer come first."""


def server_command(settings: Settings, data: Path) -> tuple[list[str], dict[str, str]]:
    """argv, and what to add to the environment, of an MLflow server for `settings.mlflow.uri` that keeps all under `data`.

    One worker on SQLite; the database is made here, in WAL mode (kept by the file), so that readers and the one writer
    do not wait for each other. Without telemetry, job runner, AI gateway and catalogue downloads: nothing leaves the
    machine. Raises `OSError` when the folder cannot be made.
    """
    folder = (data / FOLDER).absolute()
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    database = folder / DATABASE
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    place = urlsplit(settings.mlflow.uri)
    argv = [*BEHIND, sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    argv += ["--host", place.hostname or "127.0.0.1", "--port", str(place.port or 80)]
    argv += ["--backend-store-uri", f"sqlite:///{database}"]
    argv += ["--artifacts-destination", (folder / "artifacts").as_uri()]
    # Not a line for every request.
    argv += ["--uvicorn-opts", f"--log-level warning --loop {garbage.__name__}:{garbage.loop.__name__}"]
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_MODEL_CATALOG_URI": "",
    }
    return argv, environment


def own_database(settings: Settings) -> Path | None:
    """The database of the server that `server_command` starts on this data folder; None: MLflow is somebody else's."""
    database = settings.data / FOLDER / DATABASE
    return database if settings.mlflow.start and database.exists() else None
