"""A release as a TOML file: written for people to read, compare and change, and read back as a candidate.

A file names what differs from the release that it starts from; all else is taken from that. What a written file names reads
back as exactly the same release. Knows nothing of where releases are registered.
"""

import difflib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import tomli_w

from watchkeeper.record import ACTIONS, Action
from watchkeeper.release import DEFAULT_POLICIES, Below, NoHit, Policy, Release

NEVER: Final = "never"
"""A threshold that is never reached: TOML has no null."""
ANY: Final = ""
"""The model of a release that leaves it to the router."""

Threshold = Annotated[float, msgspec.Meta(ge=0, le=1)] | Literal["never"] | msgspec.UnsetType
Share = Annotated[float, msgspec.Meta(ge=0, le=1)] | msgspec.UnsetType
Count = Annotated[int, msgspec.Meta(ge=0)] | msgspec.UnsetType
Positive = Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)] | msgspec.UnsetType


_A_THRESHOLD: Final = f'must be a number from 0 to 1, or "{NEVER}"'
MUST: Final = {"flag_at": _A_THRESHOLD, "block_at": _A_THRESHOLD, "action": f"must be one of {', '.join(ACTIONS)}"}
"""What these keys must be: more than their type says."""

T = TypeVar("T")


class ReleaseFileError(Exception):
    """A file that is no release; the message is one line that names file and key."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file. A key that is not given is unset, and stays as in the release that the file starts from."""


class _Parameters(_Table, frozen=True):
    max_tokens: Positive = msgspec.UNSET
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | msgspec.UnsetType = msgspec.UNSET
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | msgspec.UnsetType = msgspec.UNSET


class _Grounding(_Table, frozen=True):
    k: Count = msgspec.UNSET
    min_score: Share = msgspec.UNSET
    max_characters: Count = msgspec.UNSET
    turns: Count = msgspec.UNSET
    cite: bool | msgspec.UnsetType = msgspec.UNSET
    no_hit: NoHit | msgspec.UnsetType = msgspec.UNSET
    no_hit_text: Text = msgspec.UNSET
    min_support: Share = msgspec.UNSET
    below: Below | msgspec.UnsetType = msgspec.UNSET
    note: Text = msgspec.UNSET
    refusal: Text = msgspec.UNSET


class _Policy(_Table, frozen=True):
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    flag_at: Threshold = msgspec.UNSET
    block_at: Threshold = msgspec.UNSET
    action: Action | msgspec.UnsetType = msgspec.UNSET


class _File(_Table, frozen=True):
    template: str | msgspec.UnsetType = msgspec.UNSET
    grounded: str | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    parameters: _Parameters = _Parameters()
    grounding: _Grounding = _Grounding()
    policies: dict[str, dict[str, Any]] = {}


def read(file: Path, base: Release, upstreams: Collection[str]) -> Release:
    """`base` with what the file says. Raises `ReleaseFileError`.

    `upstreams`: the names that `model` may have. `flag_at` and `block_at` may be "never", `model` "" for any.
    """
    said = _table(file, _parsed(file), _File)
    if said.model and said.model not in upstreams:
        raise ReleaseFileError(f"{file}: model: there is no upstream {said.model!r}; there is {', '.join(upstreams)}")
    if said.grounded is not msgspec.UNSET:
        for place in ("{sources}", "{prompt}"):
            if said.grounded.count(place) != 1:
                raise ReleaseFileError(f"{file}: grounded: must have {place} exactly once")
    return msgspec.structs.replace(
        base,
        template=base.template if said.template is msgspec.UNSET else said.template,
        grounded=base.grounded if said.grounded is msgspec.UNSET else said.grounded,
        model=base.model if said.model is msgspec.UNSET else said.model or None,
        parameters=msgspec.structs.replace(base.parameters, **_given(said.parameters)),
        grounding=msgspec.structs.replace(base.grounding, **_given(said.grounding)),
        policies=base.policies | _policies(file, said.policies, base),
    )


def written(release: Release) -> str:
    """The release as a file that names everything of it."""
    plain: dict[str, Any] = {
        "template": release.template,
        "grounded": release.grounded,
        "model": release.model or ANY,
        "parameters": msgspec.to_builtins(release.parameters),
        "grounding": msgspec.to_builtins(release.grounding),
        "policies": {name: _policy(policy) for name, policy in sorted(release.policies.items())},
    }
    # A text of several lines is written as such, so that a difference shows the line; not where TOML would change its ends.
    return tomli_w.dumps(plain, multiline_strings="\r" not in release.template + release.grounded)


def difference(base: Release, candidate: Release) -> str:
    """What differs, as a unified diff of the two files; empty where nothing does."""
    lines = difflib.unified_diff(
        written(base).splitlines(keepends=True),
        written(candidate).splitlines(keepends=True),
        fromfile=base.id,
        tofile=candidate.id,
        n=2,
    )
    return "".join(lines)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReleaseFileError(f"{file}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseFileError(f"{file}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ReleaseFileError(f"{file}: not valid TOML: {error}") from None


def _table(file: Path, plain: dict[str, Any], kind: type[T], place: str = "") -> T:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise ReleaseFileError(f"{file}: {_explain(error, place)}") from None


def _policies(file: Path, said: dict[str, dict[str, Any]], base: Release) -> dict[str, Policy]:
    guards = DEFAULT_POLICIES | base.policies
    changed: dict[str, Policy] = {}
    for guard, plain in said.items():
        if guard not in guards:
            raise ReleaseFileError(f"{file}: policies.{guard}: there is no such guard; there is {', '.join(guards)}")
        given = _given(_table(file, plain, _Policy, f"policies.{guard}"))
        changed[guard] = msgspec.structs.replace(guards[guard], **given)
    return changed


def _given(table: _Table) -> dict[str, Any]:
    """What the file says of a table."""
    said = {name: getattr(table, name) for name in table.__struct_fields__}
    return {name: None if value == NEVER else value for name, value in said.items() if value is not msgspec.UNSET}


def _policy(policy: Policy) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(policy)
    return {name: NEVER if value is None else value for name, value in plain.items()}


def _explain(error: msgspec.ValidationError, place: str) -> str:
    """`Expected `int`, got `str` - at `$.k`` in `grounding` → `grounding.k: expected int, got str`."""
    message, _, where = str(error).replace("`", "").partition(" - at ")
    keys = [place, where.removeprefix("$").removeprefix(".")]
    unknown = "Object contains unknown field "
    if message.startswith(unknown):
        keys.append(message.removeprefix(unknown))
        message = "there is no such key"
    key = ".".join(part for part in keys if part)
    return f"{key}: {MUST.get(keys[1], message[:1].lower() + message[1:])}"
