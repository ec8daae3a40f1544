"""`watchkeeper doctor`: looks at every part of this set-up and says, in a line each, what is wrong and what to do."""

import contextlib
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import requests

from watchkeeper.cli import output
from watchkeeper.cli.up import is_free, ports
from watchkeeper.settings import Settings

OVERDUE: Final = timedelta(minutes=30)
"""A schedule that is so long behind what it said it would do next is not running; a long backlog reports as it goes."""


LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Finding:
    """`state`: good; bad (something does not work); off (it is not running, which may be meant)."""

    part: str
    state: Literal["good", "bad", "off"]
    detail: str
    advice: str = ""


def run(settings: Settings, *, as_json: bool) -> int:
    """0 when nothing is bad, else 1."""
    findings = [finding for look in LOOKS for finding in look(settings)]
    if as_json:
        output.document([asdict(finding) for finding in findings])
    else:
        output.table(("part", "state", "what", "what to do"), (list(asdict(finding).values()) for finding in findings))
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def _weights(settings: Settings) -> Iterator[Finding]:
    from watchkeeper.embedded.weights import CHAT, WeightsMissing, chat_model, encoder_model

    wanted = [("encoder weights", encoder_model)] if settings.encoder.base_url is None else []
    if settings.starts_model and settings.model.name == CHAT.folder:
        wanted.append(("model weights", chat_model))
    for part, find in wanted:
        try:
            yield Finding(part, "good", str(find(settings.models)))
        except WeightsMissing as error:
            yield Finding(part, "bad", str(error), "watchkeeper model --fetch")


def _data(settings: Settings) -> Iterator[Finding]:
    folder = settings.data
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".doctor"
        probe.write_bytes(b"")
        probe.unlink()
        yield Finding("data folder", "good", str(folder.resolve()))
    except OSError as error:
        yield Finding("data folder", "bad", f"{folder}: {error.strerror}", "give another one with --data")


def _knowledge(settings: Settings) -> Iterator[Finding]:
    from watchkeeper.serving.documents import SUFFIXES

    known = ", ".join(sorted(SUFFIXES))
    given = settings.knowledge
    for where, folders in [("", given.folders), *((f"{base.name}: ", base.folders) for base in given.bases)]:
        for folder in folders:
            if folder.is_dir():
                count = sum(1 for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
                fix = "" if count else f"add {known}"
                yield Finding("knowledge", "good" if count else "bad", f"{where}{folder}: {count} documents", fix)
            else:
                fix = "set knowledge.bases" if where else "set knowledge.folders"
                yield Finding("knowledge", "bad", f"{where}{folder}: there is no such folder", fix)


def _release(settings: Settings) -> Iterator[Finding]:
    from watchkeeper.release import ReleaseBroken, challenger, champion

    try:
        other = challenger(settings.data)
        beside = f", {other.release.id} serves {other.share:.3g} of the requests that name none" if other else ""
        yield Finding("release", "good", f"{champion(settings.data).id} serves{beside}")
    except ReleaseBroken as error:
        yield Finding("release", "bad", str(error), "a gateway that is started now ends at once")


def _selection(settings: Settings) -> Iterator[Finding]:
    """Routes and cascades."""
    from watchkeeper.release import Follower, ReleaseBroken
    from watchkeeper.serving.calibration import UNCALIBRATED, read

    try:
        releases = Follower(settings.data, time.monotonic)
    except ReleaseBroken:
        return  # `_release` says so
    for route in settings.routes:
        there = route.release in (None, "champion", "challenger", releases.champion().id)
        if not there and releases.named(route.release or "") is None:
            what = f"its release {route.release} is not here: the champion serves it"
            yield Finding(f"route {route.name}", "bad", what, "watchkeeper release list; the shipper brings releases")
    known = read(settings.data)
    cascades = [("cascade", settings.cascade), *((f"cascade of {route.name}", route.cascade) for route in settings.routes)]
    for part, cascade in cascades:
        if cascade is None:
            continue
        found = [one for one in known if one.small in cascade.small and one.large in cascade.large]
        if cascade.difficulty is not None:
            yield Finding(part, "good", f"the large model is asked from a difficulty of {cascade.difficulty:g}")
        elif found:
            limits = ", ".join(f"{one.difficulty:.3f} by {one.by}" for one in found)
            yield Finding(part, "good", f"the large model is asked from {limits}, calibrated on {found[0].n} cases")
        else:
            what = f"not calibrated: the large model is asked from a difficulty of {UNCALIBRATED:g}"
            yield Finding(part, "off", what, "watchkeeper calibrate cascade")


def _redaction(settings: Settings) -> Iterator[Finding]:
    from watchkeeper.serving.labels import RedactionKeyBroken, labels

    styles = [f"{name} {style}" for name, style in settings.redaction.styles.items()]
    try:
        labels(settings)
    except RedactionKeyBroken as error:
        yield Finding("redaction", "bad", str(error), "a gateway that is started now ends at once")
    else:
        yield Finding("redaction", "good", ", ".join([settings.redaction.default, *styles]))


def _keys(settings: Settings) -> Iterator[Finding]:
    from watchkeeper.serving.keys import KeysBroken, keys_of, read

    try:
        keys_of(settings)
        keys = read(settings.keys_file)
    except KeysBroken as error:
        yield Finding("API keys", "bad", str(error), "a gateway that is started now ends at once")
        return
    host = settings.gateway.host
    if keys is None:
        if host in LOOPBACK:
            yield Finding("API keys", "good", f"there is none, and only this machine reaches {host}")
        else:
            advice = 'watchkeeper keys add --tenant …, or gateway.host = "127.0.0.1"'
            yield Finding(
                "API keys", "bad", f"there is none: whoever reaches {host}:{settings.gateway.port} may ask", advice
            )
        return
    good = sum(key.good(time.time()) for key in keys)
    if settings.keys_file.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        detail = f"{settings.keys_file}: others than its owner can write it, and so let themselves in"
        yield Finding("API keys", "bad", detail, f"chmod 600 {settings.keys_file}")
    elif not good:
        yield Finding("API keys", "bad", "all have ended: nobody may ask", "watchkeeper keys add --tenant …")
    else:
        tenants = len({key.tenant for key in keys if key.good(time.time())})
        yield Finding("API keys", "good", f"{good} of {tenants} tenant{'s' if tenants > 1 else ''}")


def _budgets(settings: Settings) -> Iterator[Finding]:
    """Of tenants that may spend so much."""
    from watchkeeper.serving.budgets import FILE_NAME, Budgets, BudgetsBroken

    file = settings.data / FILE_NAME
    if not file.exists():
        return
    try:
        with contextlib.closing(Budgets(file, settings.tenants, None)) as budgets:
            allowances = list(budgets.allowances())
    except BudgetsBroken as error:
        yield Finding("budgets", "bad", str(error), "a gateway that is started now ends at once")
        return
    for tenant, allowance in allowances:
        for period, budget, spent in (
            ("day", tenant.usd_per_day, allowance.day.usd),
            ("month", tenant.usd_per_month, allowance.month.usd),
        ):
            if budget is not None:
                detail = f"{spent:.2f} of {budget:g} USD a {period} (UTC) are spent"
                near = spent >= tenant.alert_at * budget
                advice = f"beyond it its requests get 429; see usd_per_{period} of [[tenants]]" if near else ""
                yield Finding(f"budget {tenant.name}", "bad" if near else "good", detail, advice)


def _servers(settings: Settings) -> Iterator[Finding]:
    gateway, board = settings.gateway, settings.dashboard
    asked = [
        ("gateway", f"http://{gateway.host}:{gateway.port}/health/ready"),
        ("dashboard", f"http://{board.host}:{board.port}/health/live"),
        ("encoder", f"{settings.encoder.url}/models"),
        ("MLflow", f"{settings.mlflow.uri}/health"),
        *((f"upstream {upstream.name}", f"{upstream.base_url}/models") for upstream in settings.all_upstreams),
    ]
    for part, url in asked:
        yield _answers(part, url)
    for setting, host, port in ports(settings):
        if not is_free(host, port):
            continue
        yield Finding(f"port {port}", "good", f"free for {setting}")


def _answers(part: str, url: str) -> Finding:
    try:
        response = requests.get(url, timeout=3)
    except requests.RequestException:
        return Finding(part, "off", f"nothing answers at {url}", "watchkeeper up")
    if response.status_code >= 500:
        return Finding(part, "bad", f"{url} answers with HTTP {response.status_code}", "read its log under the data folder")
    return Finding(part, "good", url)


def _spool(settings: Settings) -> Iterator[Finding]:
    from watchkeeper.telemetry.depth import depth
    from watchkeeper.telemetry.room import megabytes

    try:
        found = depth(settings.data, settings.spool_folder, settings.gateway.max_spool_bytes, time.time)
    except OSError as error:
        yield Finding("spool", "bad", f"{settings.spool_folder}: {error.strerror}", "check the data folder and its disk")
        return
    room = found.room
    detail = f"{found.rows} rows, {megabytes(room.used)} of {megabytes(room.limit)}"
    if found.oldest_s is not None:
        detail += f"; the oldest is {_age(found.oldest_s)} old"
    if room.lack is None:
        yield Finding("spool", "good", detail)
    else:
        advice = "requests are refused (503) until the shipper has made room: see what holds it up below, "
        advice += "or free space on the disk" if room.left_on_disk <= 0 else "or raise gateway.max_spool_bytes"
        yield Finding("spool", "bad", f"full: {room.lack}; {detail}", advice)
    for path, why in found.unreadable.items():
        advice = "what was whole in it is delivered; once you take the loss for final, remove it and its notes"
        yield Finding(
            "spool", "bad", f"{path}: {why}", advice if path.endswith(".torn") else "start the shipper: it mends it"
        )


def _erasure(settings: Settings) -> Iterator[Finding]:
    from watchkeeper_evaluations.erasure.selection import JOURNAL

    if (settings.data / JOURNAL).exists():
        yield Finding("erasure", "bad", "one has not ended: something could not be reached", "run watchkeeper erase again")


def _shipper(settings: Settings) -> Iterator[Finding]:
    from watchkeeper.lake.lake import LakeUnavailable
    from watchkeeper.telemetry.depth import SILENT_S, depth
    from watchkeeper.telemetry.ledger import pending

    try:
        waiting, _ = pending(settings)
    except LakeUnavailable as error:
        yield Finding("lake", "bad", str(error), "check lake.uri")
        return
    found = depth(settings.data, settings.spool_folder, settings.gateway.max_spool_bytes, time.time)
    detail = ", ".join(f"{count} wait for {sink}" for sink, count in waiting.items())
    if found.said_s is None:
        yield Finding("shipper", "off", f"it never ran on this data folder; {detail}", "watchkeeper up")
        return
    if found.said_s > SILENT_S:
        detail = f"its last report is {_age(found.said_s)} old; {detail}"
        yield Finding("shipper", "off", detail, "watchkeeper up, or watchkeeper ship; its log is under the data folder")
        return
    for name, sink in found.sinks.items():
        if sink.done_in_s:
            detail += f"; {name} will be done in {_age(sink.done_in_s)}"
    yield Finding("shipper", "good", detail)
    yield from _dead_letters(settings)
    for name, sink in found.sinks.items():
        if sink.error:
            lag = f"; the oldest waits for {_age(sink.lag_s)}" if sink.lag_s else ""
            yield Finding(f"shipper {name}", "bad", f"takes nothing: {sink.error}{lag}", _REMEDIES.get(name, _COLLECTOR))


def _dead_letters(settings: Settings) -> Iterator[Finding]:
    from watchkeeper.telemetry.dead_letters import DeadLetters

    with contextlib.closing(DeadLetters(settings.data, writable=False)) as letters:
        if count := letters.count():
            advice = "watchkeeper ship --dead-letters sends them again, and says why any is refused"
            yield Finding("dead letters", "bad", f"{count} rows were refused for what is in them", advice)


_REMEDIES: Final = {
    "mlflow": "start MLflow, or check mlflow.uri; nothing is lost meanwhile",
    "lake": "check lake.uri and its disk; nothing is lost meanwhile",
}


_COLLECTOR: Final = "start it or check [[collectors]]; the spool keeps what it lacks, or take its entry out of the settings"


def _age(seconds: float) -> str:
    """A time span for people."""
    return f"{seconds:.0f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def _lake(settings: Settings) -> Iterator[Finding]:
    """Only what is wrong; that it cannot be read is said with the spool."""
    from watchkeeper.lake.lake import Lake, LakeUnavailable
    from watchkeeper.lake.tables import TABLES

    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    for table in TABLES:
        with contextlib.suppress(LakeUnavailable):
            later = lake.newer(table)
            if later is not None:
                yield Finding(
                    "lake", "bad", f"{table}: {later}", "nothing is lost; update Watchkeeper here to see all of it"
                )


def _schedule(settings: Settings) -> Iterator[Finding]:
    from watchkeeper_evaluations import schedule_status

    status = schedule_status.read(settings.data)
    if status is None:
        yield Finding("schedule", "off", "it never ran on this data folder", "watchkeeper up")
        return
    for name, job in status.jobs.items():
        part = f"schedule {name}"
        until = f"judged until {job.window.end:%Y-%m-%d %H:%M}Z" if job.window else "no window judged yet"
        if job.error:
            yield Finding(part, "bad", f"{until}; {job.error}", "it is tried again; read logs/schedule.log")
        elif job.next_run is None or job.next_run < datetime.now(UTC) - OVERDUE:
            yield Finding(part, "off", f"{until}; it is not running", "watchkeeper up")
        else:
            yield Finding(part, "good", f"{until}; looks again at {job.next_run:%Y-%m-%d %H:%M:%S}Z")
    if status.webhook:
        yield Finding("alerts.webhook", "bad", status.webhook, "check alerts.webhook; it is tried again")


LOOKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    *(
        _data,
        _weights,
        _knowledge,
        _release,
        _selection,
        _redaction,
        _keys,
        _budgets,
        _spool,
        _shipper,
        _lake,
        _erasure,
        _schedule,
        _servers,
    ),
)
