"""Releases in MLflow: each is a version of one prompt, so that its UI shows, compares and aliases them.

A release is a chat prompt (`template` is the system message, `grounded` the user's, its places written as MLflow writes
variables) with model and parameters as its `model_config` and the rest in tags. A tag can be changed by anyone: the tag
`watchkeeper.digest` seals the whole, and what does not have its digest any more is not read as a release.

Not MLflow's `register_prompt`: it links the prompt to whatever experiment is active in this process, from a thread, and
copies the tags of each version onto the prompt.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import requests

from watchkeeper.release import MOST_SHARE, Challenger, Grounding, Parameters, Policy, Release
from watchkeeper.tracking.tracking import Tracking, TrackingUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, PromptVersion

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
CANARY: Final = "watchkeeper.canary"
"""The prompt's tag that says which share of the requests the challenger serves. It names the version too: an alias that is
moved by hand does not take the share with it. Not a tag of the version: those do not show in a stamp."""
DIGEST: Final = "watchkeeper.digest"
GROUNDING: Final = "watchkeeper.grounding"
POLICIES: Final = "watchkeeper.policies"

PLACES: Final = (("{sources}", "{{sources}}"), ("{prompt}", "{{prompt}}"))
"""The places in `Release.grounded`, and how MLflow writes its variables."""

PAGE: Final = 100
"""Versions a page."""

EXPERIMENTS: Final = "_mlflow_experiment_ids"
"""The tag by which MLflow's UI shows a prompt in an experiment: ids with a comma before, between and after them."""

TIMEOUT_S: Final = (2.0, 10.0)


class ReleaseUnknown(Exception):
    """There is no such release; the message is one line."""


class ReleaseChanged(Exception):
    """A prompt version that is not (or no longer) what was registered; the message is one line that names it."""


class ReleaseExists(Exception):
    """A release of the same content is registered; the message is one line that names it."""


@dataclass(frozen=True)
class Registered:
    """A release as MLflow has it. `description`: what whoever registered it wrote."""

    release: Release
    aliases: tuple[str, ...]
    created_at: datetime
    description: str

    @property
    def id(self) -> str:
        return self.release.id


@dataclass(frozen=True)
class Changed:
    """A version that cannot be read as a release. `why`: one line that names it."""

    id: str
    aliases: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Shelf:
    """Every version under the prompt's name, newest first. `canary`: what the prompt's tag of that name says."""

    registered: tuple[Registered, ...]
    changed: tuple[Changed, ...]
    canary: str | None = None

    @property
    def champion(self) -> Release | None:
        return self._under(CHAMPION)

    @property
    def challenger(self) -> Challenger | None:
        """Who serves a share beside the champion. None: nobody, or `canary_fault` says why nobody does."""
        named = self._under(CHALLENGER)
        if named is None or self.champion is None or named == self.champion or not self.canary:
            return None
        try:
            canary = msgspec.json.decode(self.canary, type=_Canary)
        except msgspec.DecodeError:
            return None
        usable = canary.version == named.version and 0 < canary.share <= MOST_SHARE
        return Challenger(named, canary.share) if usable else None

    @property
    def canary_fault(self) -> str | None:
        """Why a release that MLflow calls challenger serves nobody, though a share is set, one line; None: it does, or
        nobody asked that it should."""
        everything: tuple[Registered | Changed, ...] = (*self.registered, *self.changed)
        named = next((one.id for one in everything if CHALLENGER in one.aliases), None)
        if named is None or not self.canary or self.challenger is not None:
            return None
        return (
            f"{named} is the challenger in MLflow, but serves nobody ({self.canary}): run `watchkeeper release canary "
            f"{named} --share 0.1` again, or `watchkeeper release canary --stop`"
        )

    def _under(self, alias: str) -> Release | None:
        return next((one.release for one in self.registered if alias in one.aliases), None)


class _Canary(msgspec.Struct, frozen=True):
    version: int
    share: float


class Releases:
    """The releases of one deployment: the versions of the MLflow prompt `name`. Raises `TrackingUnavailable`."""

    def __init__(self, tracking: Tracking, name: str) -> None:
        self.name = name
        self._tracking = tracking

    def get(self, ref: str) -> Release:
        """The release of an alias (`champion`), an id (`watchkeeper@3`) or a version (`3`).

        Raises `ReleaseUnknown`, and `ReleaseChanged` where it is not what was registered.
        """
        return self.find(ref).release

    def find(self, ref: str) -> Registered:
        """`get`, with what MLflow knows of it."""
        shelf = self.shelf()
        wanted = f"{self.name}@{ref}" if ref.isdecimal() else ref
        for one in shelf.registered:
            if wanted == one.release.id or wanted in one.aliases:
                return one
        for other in shelf.changed:
            if wanted == other.id or wanted in other.aliases:
                raise ReleaseChanged(other.why)
        known = ", ".join(one.release.id for one in shelf.registered[:10])
        raise ReleaseUnknown(f"there is no release {ref!r}; there is {known or 'none registered yet'}")

    def all(self) -> list[Registered]:
        """Every release, newest first."""
        return list(self.shelf().registered)

    def champion(self) -> Release | None:
        """What the alias `champion` names; None: nothing. Raises `ReleaseChanged` when it is not what was registered."""
        with contextlib.suppress(ReleaseUnknown):
            return self.get(CHAMPION)
        return None

    def shelf(self) -> Shelf:
        """Every version, also those that are no release any more."""
        aliases, canary = self._named()
        registered: dict[str, Registered] = {}  # a version that comes between two pages moves one onto both
        changed: dict[str, Changed] = {}
        with self._tracking.speaking() as client:
            for version in self._versions(client):
                release_id = f"{self.name}@{version.version}"
                names = tuple(alias for alias, number in aliases.items() if number == str(version.version))
                try:
                    registered[release_id] = _registered(version, names)
                except ReleaseChanged as error:
                    changed[release_id] = Changed(release_id, names, str(error))
        return Shelf(tuple(registered.values()), tuple(changed.values()), canary)

    def register(self, release: Release, description: str) -> Release:
        """Makes it the newest version and gives it as that. Raises `ReleaseExists` when one has this content."""
        twin = next((one.release for one in self.all() if one.release.digest == release.digest), None)
        if twin is not None:
            raise ReleaseExists(f"nothing was registered: {twin.id} has this content")
        with self._tracking.speaking() as client:
            self._make(client)
            made = client.create_prompt_version(
                self.name,
                _messages(release),
                description=description,
                tags=_tags(release),
                model_config=_model_config(release),
            )
        return _release(made)

    def promote(self, release: Release) -> None:
        """Moves the alias `champion` to it. Raises `ReleaseUnknown`, `ReleaseChanged`."""
        if self.get(release.id).digest != release.digest:
            raise ReleaseChanged(f"{release.id} in MLflow has another content than the one given")
        with self._tracking.speaking() as client:
            client.set_prompt_alias(self.name, CHAMPION, release.version)

    def challenge(self, release: Release, share: float) -> None:
        """Lets it serve a share of the requests beside the champion. Raises `ReleaseUnknown`, `ReleaseChanged`."""
        if self.get(release.id).digest != release.digest:
            raise ReleaseChanged(f"{release.id} in MLflow has another content than the one given")
        canary = msgspec.json.encode(_Canary(release.version, share)).decode()
        with self._tracking.speaking() as client:  # in this order: an alias never has the share of another version
            client.set_prompt_tag(self.name, CANARY, canary)
            client.set_prompt_alias(self.name, CHALLENGER, release.version)

    def end_challenge(self) -> None:
        """Nobody serves beside the champion any more. An alias that somebody set without a share is a name, and stays."""
        aliases, canary = self._named()
        if not canary:
            return
        with self._tracking.speaking() as client:
            if CHALLENGER in aliases:
                client.delete_prompt_alias(self.name, CHALLENGER)
            client.delete_prompt_tag(self.name, CANARY)

    def tag(self, release: Release, tags: Mapping[str, str]) -> None:
        """Sets tags `watchkeeper.<key>` on its version; they do not count for the digest."""
        with self._tracking.speaking() as client:
            for key, value in tags.items():
                client.set_prompt_version_tag(self.name, release.version, f"watchkeeper.{key}", value)

    def show_in(self, experiment_id: str) -> None:
        """Makes MLflow's UI list the prompt among those of the experiment."""
        with self._tracking.speaking() as client:
            prompt = client.get_prompt(self.name)
            known = [part for part in prompt.tags.get(EXPERIMENTS, "").split(",") if part] if prompt else []
            if prompt and experiment_id not in known:
                client.set_prompt_tag(self.name, EXPERIMENTS, f",{','.join([*known, experiment_id])},")

    def stamp(self) -> bytes:
        """Bytes that change when a version comes or an alias moves; empty without a prompt of that name.

        One request of MLflow's REST interface, for who asks every other second: a sixth of the client's CPU, and it does
        not load the client. A tag that is changed or an older version that is deleted does not show.
        """
        uri = self._tracking.uri
        try:
            url = f"{uri}/api/2.0/mlflow/registered-models/get"
            answer = requests.get(url, params={"name": self.name}, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise TrackingUnavailable(f"MLflow does not answer at {uri}") from error
        if answer.status_code == 404 and b"RESOURCE_DOES_NOT_EXIST" in answer.content:
            return b""
        if answer.status_code != 200:
            raise TrackingUnavailable(f"MLflow at {uri}: HTTP {answer.status_code}")
        return answer.content

    def _named(self) -> tuple[dict[str, str], str | None]:
        """Alias → version, and the tag `CANARY`. Not from the versions themselves: MLflow's search leaves their aliases
        out."""
        stamp = self.stamp()
        model = msgspec.json.decode(stamp)["registered_model"] if stamp else {}
        aliases = {entry["alias"]: entry["version"] for entry in model.get("aliases", ())}
        return aliases, {tag["key"]: tag["value"] for tag in model.get("tags", ())}.get(CANARY)

    def _make(self, client: "MlflowClient") -> None:
        from mlflow.exceptions import MlflowException

        if client.get_prompt(self.name) is not None:
            return
        try:
            client.create_prompt(self.name, description="What Watchkeeper serves: each version is a release")
        except MlflowException as error:  # another process was first, unless it made a model of that name
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or client.get_prompt(self.name) is None:
                raise

    def _versions(self, client: "MlflowClient") -> Iterator["ModelVersion"]:
        """Newest first. Not `search_prompt_versions`, which fails whole when one of them cannot be read."""
        from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

        token: str | None = None
        while True:
            page = client.search_model_versions(
                f"name = '{self.name}' AND tag.`{IS_PROMPT_TAG_KEY}` = 'true'",
                max_results=PAGE,
                order_by=["version_number DESC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return


def _registered(version: "ModelVersion", aliases: tuple[str, ...]) -> Registered:
    from mlflow.exceptions import MlflowException
    from mlflow.prompt.registry_utils import model_version_to_prompt_version

    try:
        prompt = model_version_to_prompt_version(version)
    except (MlflowException, ValueError) as error:
        raise ReleaseChanged(_changed(f"{version.name}@{version.version}", error)) from None
    return Registered(
        release=_release(prompt),
        aliases=aliases,
        created_at=datetime.fromtimestamp(prompt.creation_timestamp / 1000, UTC),
        description=prompt.description or "",
    )


def _release(prompt: "PromptVersion") -> Release:
    """A prompt version as the release that it was registered as. Raises `ReleaseChanged`."""
    release_id = f"{prompt.name}@{prompt.version}"
    if DIGEST not in prompt.tags:
        raise ReleaseChanged(f"{release_id} is no release: it has no tag {DIGEST}")
    try:
        messages = prompt.template
        if isinstance(messages, str) or [message["role"] for message in messages] != ["system", "user"]:
            raise ValueError("it has not one message of the system and one of the user")
        config = dict(prompt.model_config or {})
        release = Release(
            name=prompt.name,
            version=prompt.version,
            template=messages[0]["content"],
            grounded=_replaced(messages[1]["content"], [(theirs, ours) for ours, theirs in PLACES]),
            model=config.pop("model_name", None),
            parameters=_parameters(config),
            grounding=msgspec.json.decode(prompt.tags[GROUNDING], type=Grounding),
            policies=msgspec.json.decode(prompt.tags[POLICIES], type=dict[str, Policy]),
        )
        digest = release.digest
    except (ValueError, TypeError, KeyError, msgspec.MsgspecError) as error:
        raise ReleaseChanged(_changed(release_id, error)) from None
    if digest != prompt.tags[DIGEST]:
        raise ReleaseChanged(f"{release_id} was changed after it was registered: its digest is another one")
    return release


def _changed(release_id: str, error: Exception) -> str:
    return f"{release_id} was changed after it was registered: {type(error).__name__}: {' '.join(str(error).split())}"


def _messages(release: Release) -> list[dict[str, str]]:
    grounded = _replaced(release.grounded, PLACES)
    return [{"role": "system", "content": release.template}, {"role": "user", "content": grounded}]


def _replaced(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def _parameters(config: Mapping[str, object]) -> Parameters:
    """Raises `ValueError` for what we would not send: the digest does not seal it, and MLflow's UI would show it."""
    unknown = config.keys() - set(Parameters.__struct_fields__)
    if unknown:
        raise ValueError(f"model_config has {', '.join(sorted(unknown))}")
    return msgspec.convert(config, Parameters)


def _model_config(release: Release) -> dict[str, str | int | float]:
    config: dict[str, str | int | float] = msgspec.to_builtins(release.parameters)
    return config if release.model is None else {"model_name": release.model, **config}


def _tags(release: Release) -> dict[str, str]:
    return {
        DIGEST: release.digest,
        GROUNDING: msgspec.json.encode(release.grounding).decode(),
        POLICIES: msgspec.json.encode(release.policies).decode(),
    }
