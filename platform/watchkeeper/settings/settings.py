"""The effective settings: one frozen `Settings`, from `watchkeeper.toml` and the environment.

Every key of the file is also an environment variable, `WATCHKEEPER_SECTION__KEY` (the environment wins). What is wrong is
one `SettingsError` that names file, line and key. Knows nothing of what the settings are used for.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import tomli_w
from pydantic import AfterValidator, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as EnvError

from watchkeeper.settings.keeping import Collector, Lake, Mlflow, Retention, named_apart
from watchkeeper.settings.selecting import EMBEDDED, CascadeForAll, Route, Routes
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
    Redaction,
    Stages,
    Structured,
    Traces,
    Upstream,
    apart,
)
from watchkeeper.settings.tenants import Tenant, told_apart
from watchkeeper.settings.values import Home
from watchkeeper.settings.watching import DEFAULT_JOBS, Alerts, Dashboard, Evaluations, Objectives, ScheduledJob, once_each

FILE_NAME: Final = "watchkeeper.toml"
PREFIX: Final = "WATCHKEEPER_"


class SettingsError(Exception):
    """Wrong settings; the message is one line that says what to change and where."""


class Settings(BaseSettings):
    """Everything that can be set. `load()` makes it; nothing else does, but tests."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False
    )

    data: Path = Path(".watchkeeper")
    models: Home = Path("~/.cache/watchkeeper").expanduser()
    gateway: Gateway = Gateway()
    tenants: Annotated[tuple[Tenant, ...], AfterValidator(told_apart)] = ()
    traces: Traces = Traces()
    upstreams: Annotated[tuple[Upstream, ...], AfterValidator(apart)] = ()
    balancing: Balancing = Balancing()
    routes: Routes = ()
    cascade: CascadeForAll = None
    model: Model = Model()
    encoder: Encoder = Encoder()
    stages: Stages = Stages()
    preprocess: Preprocess = Preprocess()
    cache: Cache = Cache()
    knowledge: Knowledge = Knowledge()
    guards: Guards = Guards()
    postprocess: Postprocess = Postprocess()
    structured: Structured = Structured()
    redaction: Redaction = Redaction()
    mlflow: Mlflow = Mlflow()
    lake: Lake = Lake()
    collectors: Annotated[tuple[Collector, ...], AfterValidator(named_apart)] = ()
    retention: Retention = Retention()
    evaluations: Evaluations = Evaluations()
    objectives: Objectives = Objectives()
    jobs: Annotated[tuple[ScheduledJob, ...], AfterValidator(once_each)] = DEFAULT_JOBS
    alerts: Alerts = Alerts()
    dashboard: Dashboard = Dashboard()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @property
    def lake_uri(self) -> str:
        return self.lake.uri or str(self.data / "lake")

    @property
    def keys_file(self) -> Path:
        return self.gateway.keys_file or self.data / "keys.json"

    @property
    def spool_folder(self) -> Path:
        return self.data / "spool"

    @property
    def starts_model(self) -> bool:
        """Whether the embedded chat model is what serves: no upstream is given."""
        return not self.upstreams

    def route(self, name: str) -> Route | None:
        """What is set for a route; None: nothing, it is served as all others."""
        return next((route for route in self.routes if route.name == name), None)

    @property
    def all_upstreams(self) -> tuple[Upstream, ...]:
        """The given upstreams, or the embedded model as the only one."""
        if self.upstreams:
            return self.upstreams
        url = f"http://{self.model.host}:{self.model.port}/v1"
        return (Upstream(name=EMBEDDED, base_url=url, model=self.model.name, price=self.model.price),)


def load(file: Path | None = None, data: Path | None = None) -> Settings:
    """Settings from `file` (default: `watchkeeper.toml` here, when there is one), the environment, and `data` over both.

    Relative folders in the file are relative to the working directory. Raises `SettingsError`.
    """
    if file is None and Path(FILE_NAME).is_file():
        file = Path(FILE_NAME)
    text, values = ("", {}) if file is None else _read(file)
    _refuse_unknown_environment()
    try:
        settings = Settings(**values)
    except EnvError as error:
        raise SettingsError(f"environment: {error}; lists and tables are written as JSON there") from None
    except ValidationError as error:
        raise SettingsError(_explain(error, file, text)) from None
    return settings if data is None else settings.model_copy(update={"data": data})


def as_toml(settings: Settings) -> str:
    """All settings as a file that `load` reads the same."""
    return tomli_w.dumps(_without_nulls(settings.model_dump(mode="json")))


def _without_nulls(plain: Any) -> Any:
    """TOML has no null: a key that is not there has its default, which is null wherever a value can be."""
    if isinstance(plain, dict):
        return {key: _without_nulls(value) for key, value in plain.items() if value is not None}
    return [_without_nulls(item) for item in plain] if isinstance(plain, list) else plain


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        raise SettingsError(f"{file}: there is no such file; give another one with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from None


def _refuse_unknown_environment() -> None:
    for name in sorted(os.environ):
        section = name.removeprefix(PREFIX).split("__")[0].lower()
        if name.startswith(PREFIX) and section not in Settings.model_fields:
            raise SettingsError(f"environment: {name}: there is no setting {section!r}")


def _explain(error: ValidationError, file: Path | None, text: str) -> str:
    """The first fault as one line: where (file, line and key, or the environment), and what is wrong."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such setting"
    variable = PREFIX + "__".join(place).upper()
    if any(variable == name or variable.startswith(name + "__") for name in os.environ if name.startswith(PREFIX)):
        return f"environment: {variable}: {message}"
    line = line_of(place, text)
    return f"{file}{f':{line}' if line else ''}: {'.'.join(place)}: {message}"


def line_of(place: list[str], text: str) -> int | None:
    """The 1-based line on which the key at `place` (names, and indices of arrays of tables) is set, as far as it goes.

    A scan of headers and keys: TOML parsers keep no positions, and a missing line only makes the message poorer.
    """
    seen: dict[str, int] = {}
    section: list[str] = []
    best: int | None = None
    inside: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[(\[)?\s*([^\]]+?)\s*\]", line)
        if header:
            section = [part.strip(" \"'") for part in header[2].split(".")]
            if header[1]:
                index = seen[header[2]] = seen.get(header[2], -1) + 1
                section.append(str(index))
            here = section
        else:
            key = re.match(r"\s*([A-Za-z0-9_\-\"'.]+)\s*=", line)
            if key is None:
                continue
            here = section + [part.strip(" \"'") for part in key[1].split(".")]
        if place[: len(here)] == here:
            best = number
        elif here[: len(place)] == place:
            inside = inside or number  # a whole list is at fault: it starts here
    return best or inside
