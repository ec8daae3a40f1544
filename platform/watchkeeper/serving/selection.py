"""Which release serves a request, and which upstreams may: those that it names, else those of its route, else the champion
or the challenger on whichever is best.

A draw between champion and challenger is a keyed hash of who asks: a conversation stays with one release, on every worker
and every gateway, and nobody has to keep who got which. The key is the challenger's digest, so that the next challenger is
drawn for others; who was drawn stays drawn while the share grows. Knows nothing of which upstream is free.
"""

import hashlib
from typing import Final, Literal

import msgspec

from watchkeeper.release import Challenger, Follower, Release
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.settings import Route

CHAMPION: Final = "watchkeeper"
"""The `model` of a request that names no release."""

SelectedBy = Literal["named", "route", "champion", "challenger"]


class Selection(msgspec.Struct, frozen=True):
    """`upstream`: the name of the only one that may answer; None: whichever the router picks. `share`: the challenger's,
    where there was a draw. `missing`: the release that the route wants and that is not there."""

    release: Release
    upstream: str | None
    by: SelectedBy
    share: float | None = None
    missing: str | None = None


def select(
    asked: str, route: Route | None, champion: Release, releases: Follower, upstreams: Upstreams, subject: bytes
) -> Selection | None:
    """Who serves a request for the model `asked`; None: nobody has this name. `subject`: who asks (see `subject`)."""
    if asked == CHAMPION and route is not None and route.release is not None:
        return _of_route(route.release, champion, releases)
    if asked == CHAMPION:
        return _drawn(champion, releases.challenger(), subject)
    named = champion if asked == champion.id else releases.named(asked)
    if named is not None:
        return Selection(named, named.model, "named")
    return Selection(champion, asked, "named") if upstreams.named(asked) else None


def subject(tenant: str, session: str | None, user: str | None, request_id: str) -> bytes:
    """Who a draw is for: a conversation, else a user, else a single request. Tenants have names of their own."""
    kind, name = ("s", session) if session else ("u", user) if user else ("r", request_id)
    return f"{kind}\0{tenant}\0{name}".encode("utf-8", "surrogatepass")


def _of_route(wanted: str, champion: Release, releases: Follower) -> Selection:
    """What a route names. A release that is not there is not worth an outage: the champion serves, and it is said."""
    if wanted == "challenger":
        challenger = releases.challenger()
        release = champion if challenger is None else challenger.release
    else:
        release = champion if wanted in ("champion", champion.id) else releases.named(wanted) or champion
        if wanted not in ("champion", release.id):
            return Selection(champion, champion.model, "champion", missing=wanted)
    return Selection(release, release.model, "route")


def _drawn(champion: Release, challenger: Challenger | None, subject: bytes) -> Selection:
    if challenger is None:
        return Selection(champion, champion.model, "champion")
    if falls(challenger, subject):
        return Selection(challenger.release, challenger.release.model, "challenger", challenger.share)
    return Selection(champion, champion.model, "champion", challenger.share)


def falls(challenger: Challenger, subject: bytes) -> bool:
    """Whether the draw falls on the challenger: of many subjects on its share of them."""
    drawn = hashlib.blake2b(subject, digest_size=8, key=challenger.release.digest.encode())
    return int.from_bytes(drawn.digest()) < challenger.share * 2**64
