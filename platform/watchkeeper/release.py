"""What serves: a release, read from `release.json` in the data folder, or `builtin@0` before any is registered.

A release is prompt template, model, parameters, grounding settings and guard policy, sealed by a digest. Knows nothing
of MLflow, where releases are registered: what comes from there comes as this file.
"""

import contextlib
import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.record import Action

FILE_NAME: Final = "release.json"


class Parameters(msgspec.Struct, frozen=True):
    """Sampling parameters sent to the upstream where the request names none; `max_tokens` is also the upper limit."""

    max_tokens: int = 256
    temperature: float = 0.2
    top_p: float = 0.9


class Grounding(msgspec.Struct, frozen=True):
    """`k` passages at most, each of at least `min_score` in [0, 1]; `turns` of the session are kept."""

    k: int = 2
    min_score: float = 0.3
    max_characters: int = 1600
    turns: int = 6


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
        """sha256 over everything that decides how the release behaves: name, version and order of keys aside."""
        nameless = msgspec.structs.replace(self, name="", version=0)
        return hashlib.sha256(msgspec.json.encode(nameless, order="deterministic")).hexdigest()


BUILTIN: Final = Release(name="builtin", version=0)


def champion(data: Path) -> Release:
    """The release that serves. Raises `msgspec.DecodeError` when `release.json` is there but is not a release."""
    try:
        return msgspec.json.decode((data / FILE_NAME).read_bytes(), type=Release)
    except FileNotFoundError:
        return BUILTIN


class Follower:
    """The release that serves now: `release.json` is read again when it changes; a broken file leaves the last good one.

    Called on every request, so the file is looked at once a second at most. `clock`: monotonic seconds.
    """

    def __init__(self, data: Path, clock: Callable[[], float]) -> None:
        self._data = data
        self._clock = clock
        self._looked_at = clock()
        self._stamp = self._look()
        self._release = champion(data)

    def __call__(self) -> Release:
        now = self._clock()
        if now - self._looked_at >= 1.0:
            self._looked_at = now
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                with contextlib.suppress(msgspec.DecodeError, OSError):
                    self._release = champion(self._data)
        return self._release

    def _look(self) -> tuple[int, int] | None:
        try:
            status = (self._data / FILE_NAME).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
