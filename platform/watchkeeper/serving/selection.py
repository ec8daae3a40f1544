"""Which release serves a request: the one that it names, else the one of its route, else the champion or the challenger.

A draw between champion and challenger is a keyed hash of who asks: a conversation stays with one release, on every worker
and every gateway, and nobody has to keep who got which. The key is the challenger's digest, so that the next challenger is
drawn for others; who was drawn stays drawn while the share grows. Knows nothing of which upstream is free.
"""

import hashlib
from typing import Final, Literal

import msgspec

from watchkeeper.release import Challenger, Follower, Release
from watchkeeper.serving.upstreams import Upstreams

CHAMPION: Final = "watchkeeper"
"""The `model` of a request that names no release."""

SelectedBy = Literal["named", "champion", "challenger"]


class Selection(msgspec.Struct, frozen=True):
    """`upstream`: the name of the only one that may answer; None: whichever the router picks. `share`: the challenger's, where
    there was a draw."""

    release: Release
    upstream: str | None
    by: SelectedBy
    share: float | None = None


def select(asked: str, champion: Release, releases: Follower, upstreams: Upstreams, subject: bytes) -> Selection | None:
    """Who serves a request for the model `asked`; None: nobody has this name. `subject`: who asks (see `subject`)."""
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
