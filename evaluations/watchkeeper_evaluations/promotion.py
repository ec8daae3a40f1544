"""How what was learned becomes what serves: a release is registered, promoted on the evidence of a gate, and rolled back.

One at a time on a data folder, and in this order: MLflow first (its alias is what gateways follow), then the event in the
lake. What could not be written after the alias had moved is told, never undone. Whatever is put into service ends a canary,
before the alias moves: what a challenger was held against serves no longer. Knows nothing of how a gate comes to its
verdict.
"""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
import pyarrow as pa

from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.lake.releases import Gate, Served, newest_gate, release_row, served
from watchkeeper.release import Challenger, Release, champion
from watchkeeper.settings import Settings
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.prompts import ReleaseChanged, Releases
from watchkeeper_evaluations.lock import alone

FIRST: Final = "served before any release was registered"
_ENDS: Final = {"promoted": "a promotion ended it", "rolled_back": "a rollback ended it"}
LOCK: Final = "releases.lock"
"""Held from reading what serves until something else does: a gate held the candidate against what it replaces."""


class PromotionRefused(Exception):
    """What nothing speaks for is not put into service; the message is one line that says what to do."""


class Registration(msgspec.Struct, frozen=True):
    """`first`: what served before, where nothing was registered yet: it is the champion now. `untold`: what could not be
    written, a line each."""

    release: Release
    first: Release | None
    untold: tuple[str, ...]


class Promotion(msgspec.Struct, frozen=True):
    """What serves now, and what did before. `changed` False: it is MLflow's champion already, and nothing was done.
    `comparison_id`: the gate over the two that counts. `ended`: the challenger whose canary this ended. `untold`: what
    could not be written after the alias had moved, a line each."""

    event: Literal["promoted", "rolled_back"]
    release: Release
    previous: Release
    changed: bool
    at: datetime
    by: str
    reason: str
    override: bool
    comparison_id: str | None
    ended: Release | None = None
    untold: tuple[str, ...] = ()


def releases_of(settings: Settings) -> Releases:
    """Where this set-up keeps its releases."""
    return Releases(Tracking(settings.mlflow.uri), settings.mlflow.prompt)


def serving(settings: Settings) -> Release:
    """What serves: the champion in MLflow; the last good copy where there is none, or it is not what was registered."""
    return _champion(releases_of(settings)) or champion(settings.data)


def register(settings: Settings, release: Release, note: str, by: str, now: datetime) -> Registration:
    """Makes `release` the newest version in MLflow; what serves stays. Raises `ReleaseExists`, `TrackingUnavailable`.

    Where nothing is registered yet, what serves is registered before it and becomes the champion, so that every later
    champion has one before it.
    """
    with alone(settings.data, LOCK):
        return _register(settings, release, note, by, now)


def _register(settings: Settings, release: Release, note: str, by: str, now: datetime) -> Registration:
    releases, first = releases_of(settings), None
    rows: list[pa.Table] = []
    shelf = releases.shelf()
    if not shelf.registered and not shelf.changed:
        serves = champion(settings.data)
        said = note if serves.digest == release.digest and note else FIRST
        first = releases.register(serves, said)
        releases.promote(first)
        rows.append(release_row(at=now, event="registered", release=first.id, digest=first.digest, reason=said, by=by))
        now += timedelta(microseconds=1)  # one after the other, as they were
        rows.append(release_row(at=now, event="promoted", release=first.id, digest=first.digest, reason=FIRST, by=by))
        now += timedelta(microseconds=1)
    if first is not None and first.digest == release.digest:
        made = first
    else:
        made = releases.register(release, note)
        rows.append(release_row(at=now, event="registered", release=made.id, digest=made.digest, reason=note, by=by))
    return Registration(made, first, (*_shown(settings, releases), *logged(settings, rows)))


def promote(settings: Settings, ref: str, *, reason: str, override: str | None, by: str, now: datetime) -> Promotion:
    """Puts a release into service. Raises `PromotionRefused` unless the newest gate over what serves and this one let it
    pass, or it is what serves under another name; `override`: why it serves all the same. Also refused: when something
    else serves in the end than was judged."""
    with alone(settings.data, LOCK):
        return _promote(settings, ref, reason, override, by, now)


def _promote(settings: Settings, ref: str, reason: str, override: str | None, by: str, now: datetime) -> Promotion:
    releases = releases_of(settings)
    candidate, base = releases.get(ref), serving(settings)
    same = base.digest == candidate.digest
    gate = None if same else _gate(settings, base, candidate, override)
    if override is None and not same and (gate is None or gate.verdict != "pass"):
        raise PromotionRefused(_why(base, candidate, gate))
    done = Promotion(
        event="promoted",
        release=candidate,
        previous=base,
        changed=not _is_champion(releases, candidate),
        at=now,
        by=by,
        reason="; ".join(part for part in (reason, override) if part),
        override=override is not None,
        comparison_id=gate.comparison_id if gate else None,
    )
    return _put_into_service(settings, releases, done)


def rollback(settings: Settings, *, to: str | None, reason: str, by: str, now: datetime) -> Promotion:
    """Puts back what served before, or the release `to`; no gate is asked. Raises `PromotionRefused` when nothing did, or
    when something else serves in the end than at first."""
    with alone(settings.data, LOCK):
        return _rollback(settings, to, reason, by, now)


def _rollback(settings: Settings, to: str | None, reason: str, by: str, now: datetime) -> Promotion:
    releases, base = releases_of(settings), serving(settings)
    target = releases.get(to) if to else _before(settings, releases, base)
    done = Promotion(
        event="rolled_back",
        release=target,
        previous=base,
        changed=not _is_champion(releases, target),
        at=now,
        by=by,
        reason=reason,
        override=False,
        comparison_id=None,
    )
    return _put_into_service(settings, releases, done)


def _put_into_service(settings: Settings, releases: Releases, done: Promotion) -> Promotion:
    if not done.changed:
        return done
    serves = serving(settings)
    if serves.digest != done.previous.digest:  # moved in MLflow's UI, or from another machine: nobody judged against that
        raise PromotionRefused(f"{serves.id} serves now, no longer {done.previous.id}: nothing was changed, run it again")
    challenger = releases.shelf().challenger
    releases.end_challenge()
    releases.promote(done.release)
    tags = {f"{done.event}_at": done.at.isoformat(), "reason": done.reason}
    if done.event == "promoted":
        tags |= {"comparison_id": done.comparison_id or "", "override": str(done.override).lower()}
    rows = []
    if challenger is not None:
        done = msgspec.structs.replace(done, ended=challenger.release)
        before = done.at - timedelta(microseconds=1)  # one after the other, as they were
        ended = canary_row(
            "canary_ended", challenger, at=before, previous=done.previous, reason=_ENDS[done.event], by=done.by
        )
        rows.append(ended)
    row = release_row(
        at=done.at,
        event=done.event,
        release=done.release.id,
        digest=done.release.digest,
        previous=done.previous.id,
        previous_digest=done.previous.digest,
        reason=done.reason,
        override=done.override,
        comparison_id=done.comparison_id,
        by=done.by,
    )
    untold = (*_tagged(releases, done.release, tags), *logged(settings, [*rows, row]))
    return msgspec.structs.replace(done, untold=untold)


def _champion(releases: Releases) -> Release | None:
    """MLflow's; None also where it is not what was registered."""
    with contextlib.suppress(ReleaseChanged):
        return releases.champion()
    return None


def _is_champion(releases: Releases, release: Release) -> bool:
    """Of this id and content: after an alias was lost, what gateways still have may bear the same id."""
    now = _champion(releases)
    return now is not None and (now.id, now.digest) == (release.id, release.digest)


def _gate(settings: Settings, base: Release, candidate: Release, override: str | None) -> Gate | None:
    try:
        return newest_gate(_lake(settings), base.digest, candidate.digest)
    except LakeUnavailable:
        if override is None:
            raise
        return None


def _why(base: Release, candidate: Release, gate: Gate | None) -> str:
    if gate is None:
        said = f"no gate has judged {candidate.id} against {base.id}, which serves"
    else:
        said = f"the gate said {gate.verdict} of {candidate.id} against {base.id}, which serves ({gate.reason})"
    run = f"watchkeeper gate {base.id} {candidate.id} --policy FILE"
    return f"{said}; run: {run}, or give --override REASON"


def _before(settings: Settings, releases: Releases, current: Release) -> Release:
    line = _line(served(_lake(settings)))
    if line and line[-1][1] == current.digest:
        line.pop()  # else it was moved by hand: what served by the log is what served before
    if not line:
        raise PromotionRefused(f"nothing is known to have served before {current.id}; name a release with --to")
    release_id, digest = line[-1]
    found = next((one.release for one in releases.all() if one.release.digest == digest), None)
    if found is None:
        raise PromotionRefused(f"{release_id} served before {current.id}, but MLflow has it no more; name one with --to")
    return found


def _line(history: Sequence[Served]) -> list[tuple[str, str]]:
    """History (newest first) → the champions that lead to what serves, oldest first, as (id, digest): a rollback takes away
    those that came after what it went back to."""
    line: list[tuple[str, str]] = []
    for event in reversed(history):
        digests = [digest for _, digest in line]
        if event.event == "rolled_back" and event.digest in digests:
            del line[len(digests) - digests[::-1].index(event.digest) :]
            continue
        for release_id, digest in ((event.previous, event.previous_digest), (event.release, event.digest)):
            if release_id and digest and digest not in [known for _, known in line[-1:]]:  # put back under its own alias
                line.append((release_id, digest))
    return line


def _shown(settings: Settings, releases: Releases) -> list[str]:
    """Lets MLflow's UI list the releases in the experiments where people look for them."""
    try:
        tracking, name = Tracking(settings.mlflow.uri), settings.mlflow.experiment
        for experiment in (name, f"{name}-experiments"):
            releases.show_in(tracking.experiment_id(experiment))
    except TrackingUnavailable as error:
        return [f"registered, but MLflow does not list it in its experiments: {error}"]
    return []


def _tagged(releases: Releases, release: Release, tags: Mapping[str, str]) -> list[str]:
    try:
        releases.tag(release, tags)
    except TrackingUnavailable as error:
        return [f"{release.id} serves, but its tags in MLflow do not say so: {error}"]
    return []


def canary_row(
    event: Literal["canary_started", "canary_ended"],
    challenger: Challenger,
    *,
    at: datetime,
    previous: Release,
    reason: str,
    by: str,
) -> pa.Table:
    """The event of a canary beside `previous`, in the words of the log: the share is part of the reason."""
    return release_row(
        at=at,
        event=event,
        release=challenger.release.id,
        digest=challenger.release.digest,
        previous=previous.id,
        previous_digest=previous.digest,
        reason="; ".join(part for part in (f"{challenger.share:.3g} of the requests", reason) if part),
        by=by,
    )


def logged(settings: Settings, rows: Sequence[pa.Table]) -> list[str]:
    """Writes events of releases; what could not be written, a line each."""
    try:
        _lake(settings).append("releases", pa.concat_tables(rows))
    except LakeUnavailable as error:
        return [f"done, but the lake's log of releases does not say so: {error}"]
    return []


def _lake(settings: Settings) -> Lake:
    return Lake(settings.lake_uri, settings.lake.storage_options)
