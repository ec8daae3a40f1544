"""How scores get into the lake: once for each row and scorer@version, whoever asks, however often, whatever crashes.

The commits of one scorer@version are a numbered sequence, in `scores` and in `rollups` alike, and the lake takes each
number once. So two evaluations that score the same rows at the same time cannot both write them: the second finds its
number taken, and looks again at what is still missing. The scores that several scorers give to a page go in one commit,
which takes the next number of each, all or nothing. A page's scores are written first and its rollup next; if that was cut
off in between, the next evaluation makes up for it, scorer by scorer, since `scored_at` rises with the numbers and so names
a scorer's last page.

A scorer that cannot score (`ScorerUnavailable`, `ScorerBroken`) holds up no other one: the others' scores are written, its
rows stay to be scored, and what it raised is raised at the end. Knows nothing of what is scored, nor of verdicts.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import pyarrow as pa

from watchkeeper.lake.cells import DIMENSIONS
from watchkeeper.lake.interactions import microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.reading import unscored
from watchkeeper.lake.rollup import roll_up_scores
from watchkeeper.lake.tables import SCORES
from watchkeeper_evaluations.scorer import Scorer, ScorerBroken, ScorerUnavailable, identity, score
from watchkeeper_evaluations.window import Window

PAGE: Final = 256
"""Rows scored and written at once: what a crash can cost, and (times two texts) what memory holds."""


def score_window(
    lake: Lake,
    scorers: Sequence[Scorer],
    window: Window,
    *,
    evaluation_id: str,
    clock: Callable[[], datetime],
    version: int | None,
    page: int = PAGE,
) -> int:
    """Has every row of the window scored by the scorers that it lacks, and returns how many rows lacked one.

    `version`: of `interactions`; a row that arrives later is for a later evaluation of the window. Raises what the scorers
    and the lake raise; what was written until then stays.
    """
    able = list(scorers)
    columns = list(
        dict.fromkeys(("request_id", "received_at", *DIMENSIONS, *(name for scorer in able for name in scorer.columns)))
    )
    if not able:
        return 0
    failures: list[ScorerBroken | ScorerUnavailable] = []
    places = _settled(lake, able)
    done: set[str] = set()
    while able:
        batch = unscored(
            lake, [*map(identity, able)], window.start, window.end, columns=columns, limit=page, version=version
        )
        if batch.num_rows == 0:
            break
        scored_at = max(microseconds(clock()), *(places[identity(scorer)].latest + 1 for scorer in able))
        tables: dict[str, pa.Table] = {}
        for scorer in tuple(able):
            lacking = _lacking(batch, identity(scorer))
            try:
                if lacking.num_rows:
                    tables[identity(scorer)] = score(scorer, lacking, scored_at=scored_at, evaluation_id=evaluation_id)
            except (ScorerBroken, ScorerUnavailable) as failure:
                able.remove(scorer)
                failures.append(failure)
        rows = pa.concat_tables([SCORES.empty_table(), *tables.values()])
        versions = {sequence(name): places[name].number + 1 for name in tables}
        if lake.append_together("scores", rows, versions):
            done.update(rows.column("request_id").to_pylist())
            if lake.append_together("rollups", roll_up_scores(rows, batch), versions):
                places |= {name: _Place(places[name].number + 1, scored_at) for name in tables}
                continue
        # Another process was first at some of it, or some scorer is out.
        places = _settled(lake, able) if able else {}
    if failures:
        raise failures[0]
    return len(done)


def sequence(name: str) -> str:
    """The name under which the lake numbers the commits of this scorer@version."""
    return f"scores:{name}"


class _Place:
    """Where a scorer@version stands: the number of its last commit, and when that was scored (µs; 0: never)."""

    def __init__(self, number: int, latest: int) -> None:
        self.number = number
        self.latest = latest


def _lacking(batch: pa.Table, name: str) -> pa.Table:
    """The rows that have no score of this scorer@version."""
    return batch.filter(pa.array([name not in (held or ()) for held in batch.column("scored_by").to_pylist()]))


def _settled(lake: Lake, scorers: Sequence[Scorer]) -> dict[str, _Place]:
    """Where each scorer@version stands, once the rollup of its last page is there too."""
    app_ids = [sequence(identity(scorer)) for scorer in scorers]
    # In this order: who writes a page after the first line has seen to the rollup of the page before it by the last.
    numbers = lake.transaction_versions("scores", app_ids)
    latest = _latest(lake, scorers)
    rolled_up = lake.transaction_versions("rollups", app_ids)
    places: dict[str, _Place] = {}
    for scorer, app_id in zip(scorers, app_ids, strict=True):
        place = places[identity(scorer)] = _Place(numbers[app_id] or 0, latest.get(identity(scorer), 0))
        if (rolled_up[app_id] or 0) < place.number:
            # A tie is impossible (scored_at rises), and if another process is just writing this rollup, one is refused.
            joined = _last_page(lake, scorer, place.latest)
            lake.append("rollups", roll_up_scores(joined, joined), app_id=app_id, version=place.number)
    return places


def _last_page(lake: Lake, scorer: Scorer, scored_at: int) -> pa.Table:
    """The scores of a scorer@version that were written last, with the dimensions of their requests."""
    dimensions = ", ".join(f"i.{name}" for name in DIMENSIONS)
    return lake.query(
        f"SELECT s.*, {dimensions} FROM scores AS s JOIN interactions AS i ON s.request_id = i.request_id AND "
        "s.date = i.date WHERE s.replay IS NOT TRUE AND s.scorer = $scorer AND s.scorer_version = $version "
        "AND epoch_us(s.scored_at) = $at",
        {"scorer": scorer.name, "version": scorer.version, "at": scored_at},
    )


def _latest(lake: Lake, scorers: Sequence[Scorer]) -> dict[str, int]:
    """When each scorer@version scored last, in microseconds; one that never did is not there."""
    found = lake.query(
        "SELECT scorer || '@' || scorer_version AS scored_by, epoch_us(max(scored_at)) AS latest FROM scores "
        "WHERE replay IS NOT TRUE AND scorer || '@' || scorer_version IN (SELECT unnest($names)) GROUP BY scored_by",
        {"names": [*map(identity, scorers)]},
    )
    return dict(zip(found.column("scored_by").to_pylist(), found.column("latest").to_pylist(), strict=True))
