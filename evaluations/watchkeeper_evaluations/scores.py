"""How scores get into the lake: once for each row and scorer@version, whoever asks, however often, whatever crashes.

The commits of one scorer@version are a numbered sequence, in `scores` and in `rollups` alike, and the lake takes each
number once. So two evaluations that score the same rows at the same time cannot both write them: the second finds its
number taken, and looks again at what is still missing. A page's scores are written first and its rollup next; if that was
cut off in between, the next evaluation makes up for it, since `scored_at` rises with the numbers and so names the last
page.

Knows nothing of what is scored, nor of verdicts.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from watchkeeper.lake.interactions import microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.reading import unscored
from watchkeeper.lake.rollup import DIMENSIONS, roll_up_scores
from watchkeeper_evaluations.scorer import Scorer, identity, score
from watchkeeper_evaluations.window import Window

PAGE: Final = 256
"""Rows scored and written at once: what a crash can cost, and (times two texts) what memory holds."""


def score_window(
    lake: Lake,
    scorer: Scorer,
    window: Window,
    *,
    evaluation_id: str,
    clock: Callable[[], datetime],
    version: int | None,
    page: int = PAGE,
) -> int:
    """Scores every row of the window that lacks this scorer@version, and returns how many.

    `version`: of `interactions`; a row that arrives later is for a later evaluation of the window. Raises what
    `scorer.score` and the lake raise; what was written until then stays.
    """
    columns = list(dict.fromkeys(("request_id", "received_at", *DIMENSIONS, *scorer.columns)))
    done = 0
    while True:
        number, latest = _settled(lake, scorer)
        batch = unscored(
            lake, scorer.name, scorer.version, window.start, window.end, columns=columns, limit=page, version=version
        )
        if batch.num_rows == 0:
            return done
        scored_at = max(microseconds(clock()), latest + 1)
        rows = score(scorer, batch, scored_at=scored_at, evaluation_id=evaluation_id)
        app_id = sequence(scorer)
        lake.append("scores", rows, app_id=app_id, version=number + 1)
        if _latest(lake, scorer, evaluation_id) == scored_at:
            lake.append("rollups", roll_up_scores(rows, batch), app_id=app_id, version=number + 1)
            done += batch.num_rows


def sequence(scorer: Scorer) -> str:
    """The name under which the lake numbers the commits of this scorer@version."""
    return f"scores:{identity(scorer)}"


def _settled(lake: Lake, scorer: Scorer) -> tuple[int, int]:
    """The number of the last commit and when it was scored, once its rollup is there too."""
    app_id = sequence(scorer)
    number = lake.transaction_version("scores", app_id) or 0
    latest = _latest(lake, scorer)
    if (lake.transaction_version("rollups", app_id) or 0) < number:
        # A tie is impossible (scored_at rises), and if another process is just writing this rollup, one of us is refused.
        dimensions = ", ".join(f"i.{name}" for name in DIMENSIONS)
        joined = lake.query(
            f"SELECT s.*, {dimensions} FROM scores AS s JOIN interactions AS i ON s.request_id = i.request_id AND "
            "s.date = i.date WHERE s.replay IS NOT TRUE AND s.scorer = $scorer AND s.scorer_version = $version "
            "AND epoch_us(s.scored_at) = $at",
            {"scorer": scorer.name, "version": scorer.version, "at": latest},
        )
        lake.append("rollups", roll_up_scores(joined, joined), app_id=app_id, version=number)
    return number, latest


def _latest(lake: Lake, scorer: Scorer, evaluation_id: str | None = None) -> int:
    """When this scorer@version (in one evaluation) scored last, in microseconds; 0: never."""
    found = lake.query(
        "SELECT epoch_us(max(scored_at)) AS latest FROM scores WHERE replay IS NOT TRUE AND scorer = $scorer "
        "AND scorer_version = $version AND ($evaluation IS NULL OR evaluation_id = $evaluation)",
        {"scorer": scorer.name, "version": scorer.version, "evaluation": evaluation_id},
    )
    return found.column("latest")[0].as_py() or 0
