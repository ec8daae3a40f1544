"""`watchkeeper evaluate`: one job, or all, over one window; a table or one JSON document."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from watchkeeper.cli import output
from watchkeeper.cli.output import WrongUse
from watchkeeper.settings import Settings
from watchkeeper_evaluations.job import JOBS, Evaluation, evaluate
from watchkeeper_evaluations.window import Window, parse_reference, parse_window

EXIT = {"pass": 0, "warn": 0, "fail": 1, "unknown": 3}


def run(
    settings: Settings,
    job: str,
    *,
    last: str | None,
    since: str | None,
    until: str | None,
    reference: str | None,
    as_json: bool,
) -> int:
    """Returns the exit code: of several jobs, that of a fail before that of an unknown before 0."""
    now = datetime.now(UTC)
    names = list(JOBS) if job == "all" else [job]
    if job != "all" and job not in JOBS:
        raise WrongUse(f"there is no job {job!r}; there is {', '.join([*JOBS, 'all'])}")
    try:
        window = parse_window(last=last, since=since, until=until, now=now)
        against = parse_reference(reference, window) if reference else None
    except ValueError as error:
        raise WrongUse(str(error)) from None
    done = [evaluate(settings, name, window, reference=against, now=now) for name in names]
    if as_json:
        output.document(plain(done[0]) if job != "all" else [plain(evaluation) for evaluation in done])
    else:
        show(done)
    codes = {EXIT[evaluation.verdict] for evaluation in done}
    return next((code for code in (1, 3) if code in codes), 0)


def plain(evaluation: Evaluation) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(evaluation)
    return body


def show(done: list[Evaluation]) -> None:
    """The table for people."""
    header = ("job", "window", "n", "scored", "verdict", "why", "MLflow")
    output.table(header, ((e.job, _interval(e.window), e.n, e.scored, e.verdict, e.reason, e.run_url) for e in done))


def _interval(window: Window) -> str:
    return f"{window.start:%Y-%m-%d %H:%M:%S}..{window.end:%H:%M:%S}Z"
