"""Canaries: a registered release serves a share of the requests that name none, beside the champion, until it is stopped,
promoted, or something else is put into service.

No gate is asked: the evidence of live traffic is what a canary is for. So its share is bounded, and who wants more
promotes. Knows nothing of how requests are drawn, or of how gateways learn of it.
"""

from datetime import datetime

import msgspec

from watchkeeper.release import MOST_SHARE, Challenger, Release
from watchkeeper.settings import Settings
from watchkeeper_evaluations.lock import alone
from watchkeeper_evaluations.promotion import LOCK, canary_row, logged, releases_of, serving


class CanaryRefused(Exception):
    """What cannot serve beside the champion; the message is one line that says what to do."""


class Canary(msgspec.Struct, frozen=True):
    """Who serves beside the `champion`; `challenger` None: nobody. `before`: who did until now. `changed` False: nothing
    was done. `untold`: what could not be written after the alias had moved, a line each."""

    champion: Release
    challenger: Challenger | None
    before: Challenger | None = None
    changed: bool = False
    untold: tuple[str, ...] = ()


def running(settings: Settings) -> Canary:
    """Who serves beside the champion now, as MLflow says. Raises `TrackingUnavailable`."""
    challenger = releases_of(settings).shelf().challenger
    return Canary(serving(settings), challenger, challenger)


def start(settings: Settings, ref: str, share: float, *, reason: str, by: str, now: datetime) -> Canary:
    """Lets the release `ref` serve `share` of the requests, or another share than before; another canary ends.

    Raises `CanaryRefused`, `ReleaseUnknown`, `ReleaseChanged`, `TrackingUnavailable`.
    """
    if not 0 < share <= MOST_SHARE:
        raise CanaryRefused(
            f"a canary serves more than 0 and at most {MOST_SHARE:g} of the requests, not {share:g}; promote what should "
            "serve more"
        )
    with alone(settings.data, LOCK):
        releases = releases_of(settings)
        shelf = releases.shelf()
        candidate = releases.get(ref)
        if shelf.champion is None:
            raise CanaryRefused("MLflow names no champion to serve beside; promote one first")
        if candidate == shelf.champion:
            raise CanaryRefused(f"{candidate.id} is the champion: it serves already")
        wanted, before = Challenger(candidate, share), shelf.challenger
        if wanted == before:
            return Canary(shelf.champion, before, before)
        releases.challenge(candidate, share)
        row = canary_row("canary_started", wanted, at=now, previous=shelf.champion, reason=reason, by=by)
        return Canary(shelf.champion, wanted, before, changed=True, untold=tuple(logged(settings, [row])))


def stop(settings: Settings, *, reason: str, by: str, now: datetime) -> Canary:
    """The champion serves all again. Raises `TrackingUnavailable`."""
    with alone(settings.data, LOCK):
        releases = releases_of(settings)
        before = releases.shelf().challenger
        releases.end_challenge()
        champion = serving(settings)
        if before is None:
            return Canary(champion, None)
        row = canary_row("canary_ended", before, at=now, previous=champion, reason=reason, by=by)
        return Canary(champion, None, before, changed=True, untold=tuple(logged(settings, [row])))
