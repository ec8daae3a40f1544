"""`watchkeeper import …`: what others logged, into the lake."""

import time
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from watchkeeper.cli import output
from watchkeeper.cli.options import Config, Data, Json, example
from watchkeeper.cli.output import WrongUse

app = typer.Typer(
    help="What others logged, into the lake: the evaluations and pages show it like any request.",
    no_args_is_help=True,
    epilog=example("watchkeeper import mlflow --experiment help-desk --since 2026-04-01"),
)


@app.callback()
def group() -> None:
    """What others logged, into the lake: the evaluations and pages show it like any request."""


@app.command(epilog=example("watchkeeper import mlflow --experiment help-desk --since 2026-04-01"))
def mlflow(
    experiment: Annotated[str, typer.Option("--experiment", help="The MLflow experiment, by name.")],
    since: Annotated[
        str | None, typer.Option("--since", help="Only traces from then on (ISO 8601; UTC without a zone).")
    ] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The traces that others logged to an MLflow experiment. Run it again for what came since: each is imported once."""
    from watchkeeper.serving.intake import language
    from watchkeeper.serving.labels import labels
    from watchkeeper.serving.redact import Redactor
    from watchkeeper.telemetry.importer import Imported, Importer
    from watchkeeper_evaluations.window import moment

    settings = output.settings(config, data)
    try:
        start: datetime | None = None if since is None else moment(since)
    except ValueError as error:
        raise WrongUse(f"--since: {error}") from None
    importer = Importer(
        settings,
        experiment,
        redact=Redactor(labels(settings)),
        language=language,
        clock=lambda: time.time_ns() // 1000,
    )

    def progress(done: Imported) -> None:
        output.note(f"{done.read} traces read, {done.imported} imported, {done.known} known already")

    try:
        done = importer.run(0 if start is None else int(start.timestamp() * 1000), progress)
    except LookupError as error:
        raise WrongUse(f"{error}; name one with --experiment") from None
    if as_json:
        output.document(msgspec.to_builtins(done))
    else:
        output.table(("import", ""), msgspec.to_builtins(done).items())
