"""A gate's policy: what a candidate has to show, from a TOML file. Where none is given it is gate.toml, beside this.

Knows how a policy is written and what is wrong with one; nothing of how it is judged (gate.py).
"""

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from watchkeeper.settings import line_of

DEFAULT: Final = Path(__file__).with_name("gate.toml")

Rule = Literal["better", "not_worse", "at_least", "at_most"]


class PolicyError(Exception):
    """A policy that cannot be used; the message is one line that says what to change and where."""


def _names(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Require(BaseModel):
    """One rule. `metric`: the first of these that enough cases have. `margin`: of `better`, the effect asked for; of
    `not_worse`, how much worse is still good enough. `value`: of `at_least` and `at_most`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_names), Field(min_length=1)]
    rule: Rule
    margin: Annotated[float, Field(gt=0)] | None = None
    value: float | None = None

    @model_validator(mode="after")
    def _has_what_its_rule_needs(self) -> Self:
        limit = self.rule in {"at_least", "at_most"}
        if limit and (self.value is None or self.margin is not None):
            raise ValueError(f"the rule {self.rule} takes a value, and no margin")
        if not limit and self.value is not None:
            raise ValueError(f"the rule {self.rule} takes a margin, and no value")
        if self.rule == "not_worse" and self.margin is None:
            raise ValueError("the rule not_worse needs a margin: how much worse is still good enough")
        return self


class Policy(BaseModel):
    """`require` in the order of the file. Below `min_cases` or `min_sessions` a rule is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    min_cases: Annotated[int, Field(ge=1)] = 30
    min_sessions: Annotated[int, Field(ge=1)] = 20
    require: Annotated[tuple[Require, ...], Field(min_length=1)]

    @property
    def primary(self) -> tuple[str, ...]:
        """What its `better` rules may judge: for `compare`, before it is known which of them the cases have."""
        return tuple(dict.fromkeys(name for rule in self.require if rule.rule == "better" for name in rule.metric))

    @property
    def margins(self) -> dict[str, float]:
        """By metric, the smallest that a rule names."""
        found: dict[str, float] = {}
        for rule in self.require:
            if rule.margin is not None:
                found |= {name: min(rule.margin, found.get(name, rule.margin)) for name in rule.metric}
        return found


def load_policy(file: Path | None = None) -> Policy:
    """The policy of a file; None: the default one. Raises `PolicyError`."""
    file = file or DEFAULT
    try:
        text = file.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise PolicyError(f"{file}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{file}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{file}: not valid TOML: {error}") from None
    try:
        return Policy(**values)
    except ValidationError as error:
        raise PolicyError(_explain(error, file, text)) from None


def _explain(error: ValidationError, file: Path, text: str) -> str:
    """The first fault as one line: file, line, key, and what is wrong."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    message = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    line = line_of(place, text)
    return f"{file}{f':{line}' if line else ''}: {'.'.join(place)}: {message}"
