"""`watchkeeper experiment …`: the commands, and what they say. What they do is in `watchkeeper_evaluations.experiment`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from watchkeeper.cli import output
from watchkeeper.cli.options import Config, Data, Json, example
from watchkeeper.cli.output import WrongUse

if TYPE_CHECKING:
    from watchkeeper.lake.experiments import Answer, Compared, Trial

app = typer.Typer(
    help="Releases tried on the cases of a dataset, every answer scored.",
    no_args_is_help=True,
    epilog=example("watchkeeper experiment run --dataset refunds --release champion --release watchkeeper@2"),
)

NOTES: Final = 10
"""How often a run says how far it is."""
SHOWN: Final = 200
"""Characters of an answer in a table."""


@app.command(epilog=example("watchkeeper experiment run --dataset refunds --release champion --release watchkeeper@2"))
def run(
    dataset: Annotated[str, typer.Option("--dataset", help="A frozen dataset.")],
    release: Annotated[list[str], typer.Option("--release", help="watchkeeper@2, its version, or champion; give each.")],
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often each case is asked.")] = 1,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put every case to every release, score the answers, log it all. 1: a release answered nothing."""
    import msgspec

    from watchkeeper_evaluations.experiment import run as try_out

    def progress(done: int, total: int) -> None:
        if done * NOTES // total > (done - 1) * NOTES // total:
            output.note(f"{done} of {total} answers")

    settings = output.settings(config, data)
    found = try_out(settings, dataset, release, repeats=repeats, progress=progress, now=datetime.now(UTC))
    if as_json:
        output.document(msgspec.to_builtins(found))
    else:
        _metrics(found.trials, f"{found.cases} cases of {found.dataset}")
        output.note(f"{found.experiment_id}: {found.run_url}")
    raise typer.Exit(1 if any(trial.failed == trial.n for trial in found.trials) else 0)


@app.command("list", epilog=example("watchkeeper experiment list --limit 5"))
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many, the newest.")] = 20,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The newest experiments."""
    import msgspec

    from watchkeeper.lake.experiments import newest_trials
    from watchkeeper.lake.lake import Lake

    settings = output.settings(config, data)
    trials = newest_trials(Lake(settings.lake_uri, settings.lake.storage_options), limit)
    if as_json:
        groups = groupby(trials, key=lambda trial: trial.experiment_id)
        output.document([_plain(experiment_id, msgspec.to_builtins(list(group))) for experiment_id, group in groups])
        return
    header = ("experiment", "started", "dataset", "release", "answers", "failed")
    output.table(
        header, ((t.experiment_id, _time(t.started_at), t.dataset, t.release, t.n, t.failed or "") for t in trials)
    )


@app.command(epilog=example("watchkeeper experiment show experiment-20260401T120000-1f2e3d4c --answers"))
def show(
    experiment: Annotated[str, typer.Argument(help="Its id, as `experiment list` shows it.")],
    answers: Annotated[bool, typer.Option("--answers", help="Also every answer; whole with --json.")] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One experiment: what each release reached, and the comparisons made of it."""
    import msgspec

    from watchkeeper.lake import experiments
    from watchkeeper.lake.lake import Lake

    settings = output.settings(config, data)
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    trials = experiments.trials(lake, experiment)
    if not trials:
        raise WrongUse(f"there is no finished experiment {experiment!r}; `watchkeeper experiment list` shows them")
    compared = experiments.comparisons(lake, experiment)
    said = experiments.answers(lake, experiment) if answers else []
    if as_json:
        body = _plain(experiment, msgspec.to_builtins(trials)) | {"comparisons": msgspec.to_builtins(compared)}
        output.document(body | ({"answers": msgspec.to_builtins(said)} if answers else {}))
        return
    _metrics(trials, f"{experiment}: {trials[0].dataset}, {_time(trials[0].started_at)}")
    if compared:
        _comparisons(compared)
    if said:
        _answers(said)


def _plain(experiment_id: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """What an experiment's trials have in common, once."""
    common = ("started_at", "ended_at", "dataset", "dataset_digest", "mlflow_parent_id")
    first = trials[0]
    own = [{key: value for key, value in trial.items() if key not in (*common, "experiment_id")} for trial in trials]
    return {"experiment_id": experiment_id, **{key: first[key] for key in common}, "trials": own}


def _metrics(trials: "Sequence[Trial]", title: str) -> None:
    """A column for each release."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    rows = [["answers", *(trial.n for trial in trials)], ["failed", *(trial.failed for trial in trials)]]
    figures = [[name, *(_figure(trial.metrics.get(name)) for trial in trials)] for name in names]
    output.table(("", *(trial.release for trial in trials)), [*rows, *figures], title=title)


def _comparisons(compared: "Sequence[Compared]") -> None:
    header = ("comparison", "when", "base", "candidate", "cases", "verdict", "why")
    output.table(
        header,
        ((c.comparison_id, _time(c.compared_at), c.base, c.candidate, c.n, c.verdict or "", c.reason) for c in compared),
    )


def _answers(said: "Sequence[Answer]") -> None:
    header = ("case", "release", "status", "answer", "request")
    output.table(header, ((a.case_id, a.release, a.error or a.status, _cut(a.answer), a.request_id) for a in said))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"
