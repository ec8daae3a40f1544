"""The settings: one frozen `Settings`, from `watchkeeper.toml` and the environment. Sections by what they are about:
serving.py, tenants.py, selecting.py, keeping.py, watching.py; the kinds of their values in values.py; settings.py reads
them."""

from watchkeeper.settings.keeping import Collector, Lake, Mlflow, Retention, Sampling
from watchkeeper.settings.selecting import Cascade, Route, Signal
from watchkeeper.settings.serving import (
    Balancing,
    Cache,
    Encoder,
    Gateway,
    Guards,
    Knowledge,
    Model,
    Postprocess,
    Preprocess,
    Price,
    Redaction,
    RedactionStyle,
    Stages,
    Structured,
    Traces,
    Upstream,
)
from watchkeeper.settings.settings import PREFIX, Settings, SettingsError, as_toml, line_of, load
from watchkeeper.settings.tenants import PRIORITIES, Tenant
from watchkeeper.settings.values import seconds
from watchkeeper.settings.watching import Alerts, Dashboard, Evaluations, Objectives, ScheduledJob

__all__ = [
    "PREFIX",
    "PRIORITIES",
    "Alerts",
    "Balancing",
    "Cache",
    "Cascade",
    "Collector",
    "Dashboard",
    "Encoder",
    "Evaluations",
    "Gateway",
    "Guards",
    "Knowledge",
    "Lake",
    "Mlflow",
    "Model",
    "Objectives",
    "Postprocess",
    "Preprocess",
    "Price",
    "Redaction",
    "RedactionStyle",
    "Retention",
    "Route",
    "Sampling",
    "ScheduledJob",
    "Settings",
    "SettingsError",
    "Signal",
    "Stages",
    "Structured",
    "Tenant",
    "Traces",
    "Upstream",
    "as_toml",
    "line_of",
    "load",
    "seconds",
]
