"""`watchkeeper dataset …`: the commands, and what they say. What they do is in `watchkeeper_evaluations.dataset`.

Where cases come from is asked in one way everywhere: a filter over traces, ids of requests, or a file. A source that gives
no case leaves everything as it was, and ends with 3.
"""

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from watchkeeper.carrying import carrying
from watchkeeper.cli import output
from watchkeeper.cli.options import Config, Data, Json, example
from watchkeeper.cli.output import WrongUse
from watchkeeper.settings import Settings

if TYPE_CHECKING:
    from watchkeeper_evaluations.dataset import Added, Case, Dataset

app = typer.Typer(
    help="Cases to try releases on: taken from traces or a file, kept in MLflow.",
    no_args_is_help=True,
    epilog=example('watchkeeper dataset create refunds --from-traces "grounded = false and text ~ refund" --last 1d'),
)

WINDOW: Final = "1d"
_REASONS: Final = {
    "no_text": "without text",
    "image": "with an image",
    "tools": "with tool calls",
    "no_user_turn_last": "that do not end with a user's turn",
    "not_found": "not in the lake",
    "replay": "replayed by an experiment",
}

Name = Annotated[str, typer.Argument(help="The dataset: letters, digits, dots, dashes, underscores.")]
File = Annotated[Path, typer.Argument(help="JSON lines; - is stdin.", allow_dash=True)]
FromTraces = Annotated[
    str | None,
    typer.Option("--from-traces", metavar="FILTER", help='Requests of the lake, as "support < 0.5 and action != block".'),
]
Ids = Annotated[str | None, typer.Option("--ids", metavar="FILE", help="Requests by id, one a line; - is stdin.")]
Last = Annotated[str | None, typer.Option("--last", help=f"Of these requests: this long until now (default: {WINDOW}).")]
Since = Annotated[
    str | None, typer.Option("--since", help="Of these requests: from here on (ISO 8601; UTC without a zone).")
]
Until = Annotated[str | None, typer.Option("--until", help="Of these requests: before this.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="So many requests at most, the newest.")]
Sample = Annotated[bool, typer.Option("--sample", help="Not the newest, but a sample of them.")]
Seed = Annotated[int, typer.Option("--seed", help="Another seed is another sample.")]


@dataclass(frozen=True)
class Source:
    """What the options say of where cases come from. At most one of the first three is given."""

    from_traces: str | None
    ids: str | None
    file: Path | None
    last: str | None
    since: str | None
    until: str | None
    limit: int
    seed: int | None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.from_traces, self.ids, self.file)) > 1:
            raise WrongUse("give one source of cases: --from-traces, --ids, or a file")
        if self.from_traces is None and (self.seed is not None or any((self.last, self.since, self.until))):
            raise WrongUse("--last, --since, --until and --sample go with --from-traces")

    @property
    def given(self) -> bool:
        return any(given is not None for given in (self.from_traces, self.ids, self.file))


@dataclass(frozen=True)
class Found:
    """Cases, and what is to be said of them."""

    cases: "list[Case]" = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)


@app.command(epilog=example('watchkeeper dataset create refunds --from-traces "text ~ refund" --last 7d --limit 100'))
def create(
    name: Name,
    from_traces: FromTraces = None,
    ids: Ids = None,
    last: Last = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 500,
    sample: Sample = False,
    seed: Seed = 0,
    freeze: Annotated[bool, typer.Option("--freeze", help="It takes no more cases afterwards.")] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a dataset, empty or of requests that were served. 3: nothing was found, and none is made."""
    from watchkeeper.tracking import Tracking
    from watchkeeper_evaluations.dataset import create as make

    settings = output.settings(config, data)
    source = Source(from_traces, ids, None, last, since, until, limit, seed if sample else None)
    with carrying(settings.data, "dataset"):
        found = _found(settings, source)
        if source.given and not found.cases:
            raise typer.Exit(_nothing(name, found, as_json))
        made = make(Tracking(settings.mlflow.uri), settings, name, found.cases, frozen=freeze)
    _say(made, found, as_json)


@app.command(epilog=example("watchkeeper dataset add refunds --ids wanted.txt"))
def add(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="JSON lines; - is stdin.", allow_dash=True)] = None,
    from_traces: FromTraces = None,
    ids: Ids = None,
    last: Last = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 500,
    sample: Sample = False,
    seed: Seed = 0,
    make: Annotated[bool, typer.Option("--create", help="Make the dataset where there is none.")] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Add cases to a dataset. Each is in it once; a missing reference answer is filled in. 3: nothing was found."""
    settings = output.settings(config, data)
    source = Source(from_traces, ids, file, last, since, until, limit, seed if sample else None)
    if not source.given:
        raise WrongUse("give a source of cases: --from-traces, --ids, or a file")
    raise typer.Exit(_add(settings, name, source, make=make, as_json=as_json))


@app.command("import", epilog=example("watchkeeper dataset import refunds refunds.jsonl"))
def import_(name: Name, file: File, config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Add the cases of a file, redacted; the dataset is made where there is none."""
    source = Source(None, None, file, None, None, None, 1, None)
    raise typer.Exit(_add(output.settings(config, data), name, source, make=True, as_json=as_json))


@app.command(epilog=example("watchkeeper dataset export refunds refunds.jsonl"))
def export(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="Where to (default: stdout).")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write the cases as JSON lines; imported again, they have the same digest."""
    from watchkeeper.tracking import Tracking
    from watchkeeper_evaluations.dataset import export_jsonl, load

    settings = output.settings(config, data)
    dataset = load(Tracking(settings.mlflow.uri), settings, name)
    text = export_jsonl(dataset.cases)
    if file is None and as_json:
        output.document(_whole(dataset))
    elif file is None:
        sys.stdout.write(text)
    else:
        _write(file, text)
        if as_json:
            output.document(_summary(dataset) | {"file": str(file)})
        else:
            output.note(f"{len(dataset.cases)} cases written to {file}")


@app.command(epilog=example("watchkeeper dataset show refunds"))
def show(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", min=0, help="So many cases in the table.")] = 20,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What is in a dataset. 1: it was frozen, and is no longer what it was then."""
    from watchkeeper.tracking import Tracking
    from watchkeeper_evaluations.dataset import DatasetChanged, load

    settings = output.settings(config, data)
    try:
        dataset = load(Tracking(settings.mlflow.uri), settings, name)
    except DatasetChanged as changed:
        if as_json:
            output.document({"name": name, "reason": str(changed)})
        else:
            output.note(str(changed))
        raise typer.Exit(1) from None
    if as_json:
        output.document(_whole(dataset))
        return
    output.table(("dataset", ""), _summary(dataset).items())
    rows = ((case.case_id, _cut(case.prompt), _cut(case.reference), case.request_id) for case in dataset.cases[:limit])
    output.table(("case", "asks", "expects", "from request"), rows)


@app.command("list", epilog=example("watchkeeper dataset list"))
def list_(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """All datasets."""
    from watchkeeper.tracking import Tracking
    from watchkeeper_evaluations.dataset import listed

    settings = output.settings(config, data)
    datasets = listed(Tracking(settings.mlflow.uri), settings)
    if as_json:
        output.document([{**msgspec.to_builtins(each), "frozen": each.frozen} for each in datasets])
    else:
        header = ("dataset", "cases", "frozen", "created", "MLflow")
        output.table(header, ((d.name, d.cases, d.frozen, f"{d.created_at:%Y-%m-%d %H:%M}Z", d.url) for d in datasets))


@app.command(epilog=example("watchkeeper dataset freeze refunds"))
def freeze(name: Name, config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Close a dataset for good: it takes no more cases, and any other change will be noticed."""
    from watchkeeper.tracking import Tracking
    from watchkeeper_evaluations.dataset import freeze as close

    settings = output.settings(config, data)
    dataset = close(Tracking(settings.mlflow.uri), settings, name)
    if as_json:
        output.document(_summary(dataset))
    else:
        output.note(f"{name}: frozen with {len(dataset.cases)} cases, digest {dataset.digest[:12]}")


def _add(settings: Settings, name: str, source: Source, *, make: bool, as_json: bool) -> int:
    from watchkeeper.tracking import Tracking
    from watchkeeper_evaluations.dataset import add

    # A file is nobody's request, and may come slowly, out of a pipe.
    with carrying(settings.data, "dataset") if source.file is None else contextlib.nullcontext():
        found = _found(settings, source)
        if not found.cases:
            return _nothing(name, found, as_json)
        added = add(Tracking(settings.mlflow.uri), settings, name, found.cases, make=make)
    _say(added, found, as_json)
    return 0


def _found(settings: Settings, source: Source) -> Found:
    """The cases of the source, and what was left out of it."""
    from watchkeeper.serving.labels import labels
    from watchkeeper.serving.redact import Redactor
    from watchkeeper_evaluations.dataset import from_requests, from_traces, import_jsonl
    from watchkeeper_evaluations.window import parse_window

    if source.file is not None:
        imported = import_jsonl(_read(source.file), Redactor(labels(settings)))
        return Found(imported.cases, {"redacted": imported.redacted})
    if source.ids is not None:
        taken = from_requests(settings, _read(Path(source.ids)).decode("utf-8", "replace").splitlines())
    elif source.from_traces is not None:
        last = source.last if source.last or source.since or source.until else WINDOW
        try:
            window = parse_window(last=last, since=source.since, until=source.until, now=datetime.now(UTC))
        except ValueError as error:
            raise WrongUse(str(error)) from None
        taken = from_traces(settings, source.from_traces, window, limit=source.limit, seed=source.seed)
    else:
        return Found()
    said = {"matched": taken.matched, "left_out": taken.left_out, "skipped": sum(taken.left_out.values())}
    return Found(taken.cases, said | {"system_text_dropped": taken.unknown_release})


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise WrongUse(f"{file}: cannot be read: {error.strerror}") from None


def _write(file: Path, text: str) -> None:
    """Whole or not at all: the file that it replaces may be the only copy of something."""
    try:
        if file.exists() and not file.is_file():  # /dev/stdout, a pipe: nothing in it can be lost
            file.write_text(text, encoding="utf-8")
        else:
            _replace(file.resolve(), text)
    except OSError as error:
        raise WrongUse(f"{file}: cannot be written: {error.strerror}") from None


def _replace(file: Path, text: str) -> None:
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        draft.touch()
        if file.exists():
            shutil.copymode(file, draft)  # what only its owner may read stays so
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, file)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _nothing(name: str, found: Found, as_json: bool) -> int:
    """Nothing to add is not enough to say that anything was done."""
    reason = "; ".join(["there is no case in it, and nothing was written", *_remarks(found.said)])
    if as_json:
        output.document({"name": name, "added": 0, **found.said, "reason": reason})
    else:
        output.note(f"{name}: {reason}")
    return 3


def _say(done: "Added", found: Found, as_json: bool) -> None:
    counts = {"added": done.added, "filled": done.filled, "already": done.already}
    if as_json:
        output.document(_summary(done.dataset) | counts | found.said)
        return
    output.table(("dataset", ""), (_summary(done.dataset) | counts).items())
    for remark in _remarks(found.said):
        output.note(remark)


def _remarks(said: dict[str, Any]) -> list[str]:
    """What people should know of a source, a line each."""
    remarks = [f"{count} requests {_REASONS[reason]} were left out" for reason, count in said.get("left_out", {}).items()]
    if said.get("system_text_dropped"):
        count = said["system_text_dropped"]
        remarks.append(f"{count} cases have no system text: the release that served them is not known here")
    redacted = said.get("redacted", {})
    if redacted:
        what = ", ".join(f"{count} {category}" for category, count in sorted(redacted.items()))
        remarks.append(f"redacted before it was stored: {what}")
    return remarks


def _summary(dataset: "Dataset") -> dict[str, Any]:
    return {
        "name": dataset.name,
        "cases": len(dataset.cases),
        "with_reference": sum(case.reference is not None for case in dataset.cases),
        "frozen": dataset.frozen,
        "digest": dataset.digest,
        "url": dataset.url,
    }


def _whole(dataset: "Dataset") -> dict[str, Any]:
    from watchkeeper_evaluations.dataset.jsonl import plain

    cases = [{"case_id": case.case_id, **plain(case)} for case in dataset.cases]
    return _summary(dataset) | {"cases": cases, "tags": dataset.tags}


def _cut(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= 80 else f"{line[:80]}…"
