"""`watchkeeper calibrate …`: what has to be measured before it can be set."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from watchkeeper.cli import output
from watchkeeper.cli.options import Config, Data, Json, example

CASCADE: Final = "watchkeeper calibrate cascade --small watchkeeper@4 --large watchkeeper@5 --loss 0.05"
NO_EVIDENCE: Final = 3

app = typer.Typer(help="What has to be measured before it can be set.", no_args_is_help=True, epilog=example(CASCADE))


@app.callback()
def group() -> None:
    """What has to be measured before it can be set."""


@app.command(epilog=example(CASCADE))
def cascade(
    small: Annotated[str, typer.Option("--small", help="A release whose model is the small upstream.")],
    large: Annotated[str, typer.Option("--large", help="The same with the large one.")],
    loss: Annotated[float, typer.Option("--loss", help="The most that the mean score may lose.")] = 0.05,
    score: Annotated[str, typer.Option("--score", help="What quality is measured by.")] = "reference_similarity",
    experiment: Annotated[str | None, typer.Option("--experiment", help="Default: the newest that tried both.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """From which difficulty on the large model of the cascade is asked, by an experiment on both. Gateways follow.

    1: nothing can stay with the small model. 3: not enough evidence.
    """
    import msgspec

    from watchkeeper_evaluations.calibration import CalibrationUnclear, calibrate

    settings = output.settings(config, data)
    try:
        done = calibrate(
            settings, small, large, score=score, loss=loss, experiment_id=experiment, now=datetime.now(UTC)
        )  # fmt: skip
    except CalibrationUnclear as unclear:
        if as_json:
            output.document({"verdict": "unknown", "reason": str(unclear)})
        output.note(f"watchkeeper: {unclear}")
        raise typer.Exit(NO_EVIDENCE) from None
    made = done.calibrations[0]
    if as_json:
        output.document(msgspec.to_builtins(done))
    else:
        rows = [
            ("large model from a difficulty of", f"{made.difficulty:.4f}, by {made.by}"),
            ("stays with the small model", f"{made.small_share:.0%} of {made.n} cases in {made.clusters} conversations"),
            (f"mean loss of {made.score}", f"{made.expected_loss:.4f} on these cases"),
            ("cost, against the large model for all", "unknown" if made.cost_share is None else f"{made.cost_share:.0%}"),
        ]
        output.table(("cascade", f"{made.small} → {made.large}"), rows)
        output.note(
            f"for conversations like these, {made.score} is expected to lose at most {made.loss:g} against {made.large} "
            "alone; for other ones nothing is said"
        )
    raise typer.Exit(0 if made.small_share > 0 else 1)
