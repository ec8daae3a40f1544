"""Where the demo plays: its settings in a fresh folder, on ports that are free, with the release that serves at first.

It promotes a release and lets verdicts fail on purpose: so MLflow, lake and alerts are its own, whatever settings the
place has. Models, encoder and documents are those of the settings: they are only asked.
"""

import os
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.cli.demo.releases import FIRST
from watchkeeper.cli.output import WrongUse
from watchkeeper.cli.up import is_free, ports
from watchkeeper.release import FILE_NAME
from watchkeeper.settings import PREFIX, Alerts, Knowledge, Lake, Mlflow, Price, ScheduledJob, Settings, as_toml

DENIED: Final = {
    "legal advice": ("legal advice", "legal opinion", "sue my landlord"),
    "colleagues' pay": ("salaries of my team", "colleague earns"),
}
NOTIONAL: Final = Price(input=0.05, output=0.15)
"""USD per million tokens: a price that a small hosted model might have, so that the demo's cost is not zero. Notional."""

OBJECTIVES: Final = {"grounded": 0.3, "relevance": None, "refusal": None, "language_match": None}
"""What the weak embedded model can be held to: what a good one does it never reaches, and no fall would be seen."""


def prepare(settings: Settings) -> Settings:
    """The demo's settings, written to a fresh folder: its knowledge base, denied topics, objectives, jobs, free ports."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    knowledge = Path(str(files(__package__).joinpath("knowledge")))
    updates: dict[str, Any] = {
        "data": settings.data / f"demo-{stamp}",
        "lake": Lake(),
        "mlflow": Mlflow(uri=settings.mlflow.uri) if settings.mlflow.start else Mlflow(),
        "alerts": Alerts(),
        "knowledge": settings.knowledge if settings.knowledge.any else Knowledge(folders=(knowledge,)),
        "guards": settings.guards.model_copy(update={"denied_topics": settings.guards.denied_topics or DENIED}),
        "model": settings.model.model_copy(update={"price": NOTIONAL}),
        "objectives": settings.objectives.model_copy(update=OBJECTIVES),
        # The story judges its own windows; the schedule goes on by the hour once it is told.
        "jobs": tuple(ScheduledJob(job=job.job, every="1h") for job in settings.jobs),
    }
    settings = _with_free_ports(settings.model_copy(update=updates))
    settings.data.mkdir(parents=True)
    (settings.data / "watchkeeper.toml").write_text(as_toml(settings), encoding="utf-8")
    (settings.data / FILE_NAME).write_bytes(msgspec.json.encode(FIRST))
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # it is in the file by now, and would win over what was changed there
    return settings


def _with_free_ports(settings: Settings) -> Settings:
    """Moves every server whose port is taken to the next free one."""
    taken: set[int] = set()
    for setting, host, port in ports(settings):
        free = next((number for number in range(port, port + 200) if number not in taken and is_free(host, number)), None)
        if free is None:
            raise WrongUse(f"no port from {port} to {port + 199} is free; set another one for {setting}")
        taken.add(free)
        section, key = setting.split(".")
        value: int | str = f"http://{host}:{free}" if key == "uri" else free
        settings = settings.model_copy(update={section: getattr(settings, section).model_copy(update={key: value})})
    return settings
