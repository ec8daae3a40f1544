"""Makes the collaborators of a gateway worker from the settings: the one place where they are put together."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import aiohttp

from watchkeeper.embedded.weights import CHAT, WeightsMissing, chat_model
from watchkeeper.encoder.client import EncoderClient, embed_blocking
from watchkeeper.following import Followed
from watchkeeper.release import Follower
from watchkeeper.serving import calibration, preprocess
from watchkeeper.serving.base import Base
from watchkeeper.serving.cache import AnswerCache
from watchkeeper.serving.exchange import HttpExchange
from watchkeeper.serving.guards import guards
from watchkeeper.serving.knowledge import Knowledge
from watchkeeper.serving.labels import labels
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.sessions import Sessions
from watchkeeper.serving.tokens import TokenCounter
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.serving.vectors import Embed
from watchkeeper.settings import Settings, seconds
from watchkeeper.telemetry.spool import Spool, SpoolBusy

MOST_WORKERS = 1024


def build(settings: Settings, session: aiohttp.ClientSession, *, clock: Callable[[], float], rng: random.Random) -> Parts:
    """Everything that stages work with, but the spool. `clock`: monotonic seconds. Raises `RedactionKeyBroken`."""
    encoder = settings.encoder
    key = os.environ.get(encoder.api_key_env) if encoder.api_key_env else None
    settings.data.mkdir(parents=True, exist_ok=True)
    # Else the first prompt would pay for loading the language model.
    threading.Thread(target=preprocess.warm, name="warm", daemon=True).start()
    exchange = HttpExchange()
    knowledge = None
    if settings.knowledge.any:
        knowledge = Knowledge(_bases(settings, partial(embed_blocking, encoder.url, encoder.model, api_key=key)))
        knowledge.look()
    calibrations = Followed(settings.data / calibration.FILE_NAME, clock(), partial(calibration.read, settings.data))
    return Parts(
        settings=settings,
        releases=Follower(settings.data, clock),
        encoder=EncoderClient(encoder.url, encoder.model, session, key),
        knowledge=knowledge,
        sessions=Sessions(settings.data / "sessions.sqlite"),
        guards=guards(settings),
        redact=Redactor(labels(settings)),
        cache=_cache(settings, clock),
        upstreams=Upstreams(settings.all_upstreams, exchange, settings.balancing, clock=clock, rng=rng),
        exchange=exchange,
        tokens=TokenCounter.open(_tokenizer(settings)),
        calibrations=lambda: calibrations.look(clock()) or (),
    )


def _bases(settings: Settings, embed: Embed) -> Iterator[Base]:
    """The base of everybody, and those of some. Each has its vectors for itself: one that is gone takes its own along."""
    given, folder, model = settings.knowledge, settings.data / "knowledge", settings.encoder.model
    if given.folders:
        yield Base(given.folders, folder, embed, model)
    for base in given.bases:
        yield Base(base.folders, folder / base.name, embed, model, name=base.name, tenants=base.tenants, routes=base.routes)


def _cache(settings: Settings, clock: Callable[[], float]) -> AnswerCache | None:
    wanted = settings.cache
    if not wanted.enabled:
        return None
    return AnswerCache(settings.data, seconds(wanted.ttl), wanted.max_entries, wanted.max_bytes, clock)


def _tokenizer(settings: Settings) -> Path | None:
    """The folder of the tokenizer that the upstream uses, where that is the embedded model."""
    if not settings.starts_model:
        return None
    try:
        return chat_model(settings.models) if settings.model.name == CHAT.folder else Path(settings.model.name)
    except WeightsMissing:
        return None


def open_spool(settings: Settings) -> tuple[Spool, str]:
    """The spool of the first worker whose name is free and can be used, and that name. Raises `SpoolFull`, `SpoolBusy`."""
    gateway = settings.gateway
    for number in range(MOST_WORKERS):
        worker = f"gateway-{number}"
        try:
            spool = Spool.open(
                settings.spool_folder, worker, durability=gateway.durability, max_bytes=gateway.max_spool_bytes
            )
        except SpoolBusy:
            continue
        return spool, worker
    raise SpoolBusy(f"{settings.spool_folder}: {MOST_WORKERS} gateway workers are running on this folder")
