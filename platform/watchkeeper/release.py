"""What serves: a release, read from `release.json` in the data folder, or `builtin@0` before any is registered.

A release is prompt template, model, parameters, grounding settings and guard policy, sealed by a digest. Every registered
one lies beside it as `releases/<name>@<version>.json`, for requests that name one; `challenger.json` is there while another
one serves a share of the requests. Knows nothing of MLflow, where releases are registered: what comes from there comes as
these files.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from watchkeeper.following import LOOK_S, Followed
from watchkeeper.record import Action

FILE_NAME: Final = "release.json"
CHALLENGER_FILE: Final = "challenger.json"
FOLDER: Final = "releases"
_ID: Final = re.compile(r"([A-Za-z0-9_.-]+)@([0-9]+)")
"""A release's id; never a path."""

MOST_SHARE: Final = 0.5
"""Whoever serves more is no challenger but the champion, and needs a gate for it."""


class ReleaseBroken(Exception):
    """A file that should hold a release holds none; the message is one line that names it."""


NoHit = Literal["answer", "say"]
Below = Literal["annotate", "refuse"]


class Parameters(msgspec.Struct, frozen=True):
    """Sampling parameters sent to the upstream where the request names none; `max_tokens` is also the upper limit."""

    max_tokens: int = 256
    temperature: float = 0.2
    top_p: float = 0.9


class Grounding(msgspec.Struct, frozen=True):
    """`k` passages at most, each of at least `min_score` in [0, 1]; `turns` of the session are kept.

    `cite`: sentences that a passage carries get its number, `[1]`. `no_hit`: what becomes of a question for which nothing
    was found: the model answers it, or `no_hit_text` does. `min_support`: an answer of which the passages carry a smaller
    share is annotated (`note` is added) or refused (`refusal` takes its place), as `below` says."""

    k: int = 2
    min_score: float = 0.3
    max_characters: int = 1600
    turns: int = 6
    cite: bool = False
    no_hit: NoHit = "answer"
    no_hit_text: str = "I found nothing about this in the documents that I can read."
    min_support: float = 0.0
    below: Below = "annotate"
    note: str = "Note: the sources do not support all of this answer."
    refusal: str = "I cannot answer this reliably from the sources that I have."


class Policy(msgspec.Struct, frozen=True):
    """What a guard's finding leads to. A finding with a score blocks from `block_at` and flags from `flag_at` on; one
    without (a rule matched) leads to `action`. None: never."""

    enabled: bool = True
    flag_at: float | None = None
    block_at: float | None = None
    action: Action = "flag"


DEFAULT_POLICIES: Final[dict[str, Policy]] = {
    "pii": Policy(action="redact"),
    "secrets": Policy(action="redact"),
    "injection": Policy(flag_at=0.5, block_at=0.9, action="block"),
    "toxicity": Policy(flag_at=0.5, block_at=0.9, action="flag"),
    "bias": Policy(flag_at=0.5, action="flag"),
    "misinformation": Policy(flag_at=0.5, action="flag"),
    "policy": Policy(flag_at=0.5, block_at=0.7, action="block"),
}

TEMPLATE: Final = (
    "You are a helpful assistant. Answer in one to three short sentences. "
    "When sources are given, answer from them; when they do not hold the answer, say that you do not know."
)
GROUNDED: Final = "Sources:\n{sources}\n\nQuestion: {prompt}"


class Release(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """`template`: the system prompt. `grounded`: what becomes of a prompt for which passages were found: `{sources}` are
    the numbered passages, `{prompt}` is the prompt. Small models follow sources beside the question, not those in the
    system prompt, which also stays the same for all requests so that upstreams can cache it.
    `model`: the name of an upstream, or None for whichever the router picks."""

    name: str
    version: int
    template: str = TEMPLATE
    grounded: str = GROUNDED
    model: str | None = None
    parameters: Parameters = Parameters()
    grounding: Grounding = Grounding()
    policies: dict[str, Policy] = msgspec.field(default_factory=lambda: dict(DEFAULT_POLICIES))

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    @cached_property
    def digest(self) -> str:
        """sha256 over everything that decides how the release behaves: name, version and order of keys aside. What came
        with a later version of this program counts where it says something: a release from before keeps its digest."""
        plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, name="", version=0))
        plain["policies"] = dict(sorted(plain["policies"].items()))
        unsaid = msgspec.to_builtins(Grounding())
        plain["grounding"] = {
            key: value for key, value in plain["grounding"].items() if key in SEALED_ALWAYS or value != unsaid[key]
        }
        return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()


SEALED_ALWAYS: Final = frozenset({"k", "min_score", "max_characters", "turns"})
"""Of `Grounding`: what was there from the beginning."""


class Challenger(msgspec.Struct, frozen=True):
    """A release that serves a `share` of the requests that name none, beside the champion."""

    release: Release
    share: Annotated[float, msgspec.Meta(ge=0, le=MOST_SHARE)]


BUILTIN: Final = Release(name="builtin", version=0)


def champion(data: Path) -> Release:
    """The release that serves. Raises `ReleaseBroken` when `release.json` is there but is not a release."""
    return _read(data / FILE_NAME) or BUILTIN


def challenger(data: Path) -> Challenger | None:
    """Who serves a share beside the champion; None: nobody, also where the file holds nothing good: then the champion
    serves all."""
    try:
        return msgspec.json.decode((data / CHALLENGER_FILE).read_bytes(), type=Challenger)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def file_of(data: Path, release_id: str) -> Path:
    """Where a registered release lies."""
    return data / FOLDER / f"{release_id}.json"


def _read(file: Path) -> Release | None:
    """None: there is no such file."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Release)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReleaseBroken(f"{file}: is no release: {error}; remove it, the shipper writes it again") from None


class Follower:
    """The releases as the files have them now: each is read again when it changes; a broken file leaves the last good one,
    and no challenger.

    Asked on every request, so a file is looked at once a second at most. `clock`: monotonic seconds. Raises `ReleaseBroken`
    when what should serve cannot be read at the start: there is no last good one then.
    """

    def __init__(self, data: Path, clock: Callable[[], float]) -> None:
        self._data = data
        self._clock = clock
        now = clock()
        self._champion = _followed(data / FILE_NAME, now)
        self._challenger = Followed(data / CHALLENGER_FILE, now, lambda: challenger(data))
        self._named: dict[str, Followed[Release]] = {}
        self._ids: tuple[str, ...] = ()
        self._listed_at = now - LOOK_S

    def champion(self) -> Release:
        """The release that serves whoever names none."""
        return self._champion.look(self._clock()) or BUILTIN

    def challenger(self) -> Challenger | None:
        """The release that serves a share of those who name none."""
        return self._challenger.look(self._clock())

    def named(self, release_id: str) -> Release | None:
        """The release `name@version`; None: there is none."""
        if _ID.fullmatch(release_id) is None:
            return None
        followed = self._named.get(release_id)
        if followed is None:
            with contextlib.suppress(ReleaseBroken, OSError):
                followed = _followed(file_of(self._data, release_id), self._clock())
            if followed is None or followed.held is None:  # not kept: whoever asks for what is not there fills no memory
                return None
            self._named[release_id] = followed
        release = followed.look(self._clock())
        if release is None:
            del self._named[release_id]
        return release

    def ids(self) -> tuple[str, ...]:
        """The ids that `named` knows, the highest version first."""
        now = self._clock()
        if now - self._listed_at >= LOOK_S:
            self._listed_at = now
            folder = self._data / FOLDER
            found = [_ID.fullmatch(file.stem) for file in folder.glob("*.json")] if folder.is_dir() else []
            versions = sorted((match[1], -int(match[2]), match[0]) for match in found if match)
            self._ids = tuple(release_id for _, _, release_id in versions)
        return self._ids


def _followed(file: Path, now: float) -> Followed[Release]:
    return Followed(file, now, lambda: _read(file), (ReleaseBroken,))
