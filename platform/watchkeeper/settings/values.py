"""The kinds of values that settings have: each checked, with an error that says what it looks like."""

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from watchkeeper import cron as crontab

_DURATION: Final = re.compile(r"^(\d+)(s|m|h|d)$")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(duration: str) -> int:
    """`90s`, `5m`, `1h`, `7d` → seconds. Raises `ValueError` on anything else."""
    match = _DURATION.match(duration.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"a duration looks like 90s, 5m, 1h or 7d, not {duration!r}")
    return int(match[1]) * _SECONDS[match[2]]


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError("must be a URL that starts with http:// or https://")
    return value.rstrip("/")


def _duration(value: str) -> str:
    seconds(value)
    return value


def _days(value: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,4}d", value):
        raise ValueError(f"is whole days, such as 90d, not {value!r}")
    return value


def _cron(value: str) -> str:
    crontab.parse(value)
    return value


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _or_false(value: object) -> object:
    """`false` is no objective (TOML has no null); `true` is nothing."""
    if value is False or (isinstance(value, str) and value.lower() == "false"):
        return None
    if value is True:
        raise ValueError("is a number, or false for no objective")
    return value


def _reference(value: str) -> str:
    if value == "previous":
        return value
    with contextlib.suppress(ValueError):
        start, end = (_utc(datetime.fromisoformat(text)) for text in value.split(".."))
        if start < end:
            return value
    raise ValueError(f"a reference is `previous` or two times like 2026-04-01T09:00..2026-04-01T10:00, not {value!r}")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Duration = Annotated[str, AfterValidator(_duration)]
Days = Annotated[str, AfterValidator(_days)]
Port = Annotated[int, Field(ge=1, le=65535)]
Cron = Annotated[str, AfterValidator(_cron)]
Reference = Annotated[str, AfterValidator(_reference)]
JobName = Literal["toxicity", "quality", "safety", "latency", "drift"]
Home = Annotated[Path, AfterValidator(Path.expanduser)]


def _as_written(value: float | None) -> float | bool:
    return False if value is None else float(value)


_SWITCHED_OFF = PlainSerializer(_as_written, when_used="json")
Share = Annotated[Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(_or_false), _SWITCHED_OFF]
Milliseconds = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_or_false), _SWITCHED_OFF]


class Section(BaseModel):
    """A table of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
