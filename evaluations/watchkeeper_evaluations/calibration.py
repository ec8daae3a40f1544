"""A cascade calibrated: an experiment on both models says from which difficulty on the large one is to be asked.

    the answers of both releases to the same cases → loss by case (one score) → threshold (risk.py) → `cascade.json`

Gateways follow the file. Knows nothing of how a threshold is found, or of what is done with it.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from watchkeeper.lake.experiments import Answer, answers, newest_with, trials
from watchkeeper.lake.lake import Lake
from watchkeeper.release import Release
from watchkeeper.serving import calibration
from watchkeeper.serving.calibration import Calibration
from watchkeeper.serving.difficulty import Difficulty, difficulty
from watchkeeper.settings import Cascade, Settings
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.prompts import Releases
from watchkeeper_evaluations.lock import alone
from watchkeeper_evaluations.risk import Case, Point, controlled, curve, needed
from watchkeeper_evaluations.scorers import MEANINGS

LOCK: Final = "cascade.lock"


class CalibrationImpossible(Exception):
    """What was asked for cannot be calibrated; the message is one line that says what to change."""


class CalibrationUnclear(Exception):
    """There is too little to calibrate on; the message is one line that says how to get more."""


class Calibrated(msgspec.Struct, frozen=True):
    """`calibrations`: by the embedding where every case has one, then by counting. `curve`: what other thresholds of the
    first would have meant. `before`: what was calibrated for these two models until now."""

    calibrations: tuple[Calibration, ...]
    before: tuple[Calibration, ...]
    curve: tuple[Point, ...]


def calibrate(
    settings: Settings, small: str, large: str, *, score: str, loss: float, experiment_id: str | None, now: datetime
) -> Calibrated:
    """Calibrates the cascade of the models of two releases on the newest experiment that tried both (or the one given), and
    writes it down.

    Raises `CalibrationImpossible`, `CalibrationUnclear`, `ReleaseUnknown`, `ReleaseChanged`, `TrackingUnavailable`,
    `LakeUnavailable`: all with one line.
    """
    meaning = MEANINGS.get(score)
    if meaning is None or meaning.better is None or (meaning.low, meaning.high) != (0.0, 1.0):
        good = ", ".join(name for name, one in MEANINGS.items() if one.better and (one.low, one.high) == (0.0, 1.0))
        raise CalibrationImpossible(f"--score {score}: quality is one of {good}")
    if not 0 < loss < 1:
        raise CalibrationImpossible(f"--loss {loss:g}: the most that mean quality may lose is above 0 and below 1")
    releases = Releases(Tracking(settings.mlflow.uri), settings.mlflow.prompt)
    pair = (releases.get(small), releases.get(large))
    _cascade_of(settings, *pair)
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    tried = experiment_id or newest_with(lake, *((release.id, release.digest) for release in pair))
    if tried is None or not trials(lake, tried):
        run = f"watchkeeper experiment run --dataset D --release {pair[0].id} --release {pair[1].id}"
        raise CalibrationUnclear(f"no experiment has tried {pair[0].id} and {pair[1].id} on the same cases; run: {run}")
    both = answers(lake, tried, pair[0].id), answers(lake, tried, pair[1].id)
    by_counting = {answer.request_id: difficulty(answer.prompt, None) for answer in chain(*both)}
    by_embedding = _by_embedding(lake, tried)
    made, curves = [], []
    for known in (by_embedding, by_counting):
        cases = paired(*both, score, known)
        if by_counting.keys() - known.keys() or not cases:
            continue
        points, clusters = curve(cases), len({case.cluster for case in cases})
        found = controlled(points, clusters, loss)
        if found is None:
            raise CalibrationUnclear(
                f"{tried} has {clusters} conversations with the score {score} of either model; a loss of at most {loss:g} "
                f"can be shown with {needed(loss)} or more"
            )
        curves.append(points)
        made.append(
            Calibration(
                small=str(pair[0].model),
                large=str(pair[1].model),
                difficulty=found.difficulty,
                by=next(iter(known.values())).by,
                score=score,
                loss=loss,
                n=len(cases),
                clusters=clusters,
                expected_loss=found.loss,
                small_share=found.small_share,
                cost_share=found.cost_share,
                experiment_id=tried,
                calibrated_at=now,
            )
        )
    if not made:
        raise CalibrationUnclear(f"{tried} has no case of which either model has the score {score}")
    return Calibrated(tuple(made), _kept(settings.data, made), tuple(curves[0]))


def _by_embedding(lake: Lake, experiment_id: str) -> dict[str, Difficulty]:
    """The difficulty of each prompt whose embedding was kept, by request id."""
    rows = lake.query(
        "SELECT request_id, prompt_text, embedding FROM interactions WHERE source = 'replay' AND embedding IS NOT NULL "
        "AND tags->>'experiment' = $id",
        {"id": experiment_id},
    ).to_pylist()
    return {
        row["request_id"]: difficulty(row["prompt_text"], np.frombuffer(row["embedding"], "<f2").astype(np.float32))
        for row in rows
    }


def paired(
    small: Sequence[Answer], large: Sequence[Answer], score: str, difficulties: Mapping[str, Difficulty]
) -> list[Case]:
    """The cases that both were asked and whose difficulty is known, by request id of the small one's. A side that failed,
    or lacks the score that the other has, is worth 0: what nobody got is no quality. Cases of which neither has the score
    say nothing, and are left out."""
    by_case: dict[tuple[str, int], list[Answer]] = defaultdict(list)
    for answer in chain(small, large):
        by_case[answer.case_id, answer.repeat].append(answer)
    found = []
    for (case_id, _), both in by_case.items():
        hard = difficulties.get(both[0].request_id)
        if len(both) != 2 or hard is None or all(_quality(answer, score) is None for answer in both):
            continue
        worse, better = (_quality(answer, score) or 0.0 for answer in both)
        found.append(
            Case(
                cluster=both[0].session or f"case {case_id}",
                difficulty=hard.value,
                loss=max(better - worse, 0.0),
                small_usd=both[0].cost_usd,
                large_usd=both[1].cost_usd,
            )
        )
    return found


def _quality(answer: Answer, score: str) -> float | None:
    """In [0, 1], 1 is best; None: not known, or nobody got an answer."""
    given = answer.scores.get(score)
    if given is None or given.value is None or answer.failed:
        return None
    return given.value if MEANINGS[score].better == "higher" else 1 - given.value


def _cascade_of(settings: Settings, small: Release, large: Release) -> Cascade:
    """The cascade of the settings that these releases stand for. Raises `CalibrationImpossible`."""
    for release in (small, large):
        if release.model is None:
            raise CalibrationImpossible(
                f"{release.id} names no model: a calibration needs one release with the small upstream as its `model`, and "
                "one with the large one"
            )
    cascades = [settings.cascade, *(route.cascade for route in settings.routes)]
    for cascade in cascades:
        if cascade is not None and small.model in cascade.small and large.model in cascade.large:
            return cascade
    raise CalibrationImpossible(
        f"no cascade of the settings has {small.model} as the small model and {large.model} as the large one; set [cascade]"
    )


def _kept(data: Path, made: Sequence[Calibration]) -> tuple[Calibration, ...]:
    """Writes them, whole or not at all, in place of those for the same two models, which are returned."""
    with alone(data, LOCK):
        known = calibration.read(data)
        same = tuple(one for one in known if (one.small, one.large) == (made[0].small, made[0].large))
        file = data / calibration.FILE_NAME
        draft = file.with_name(f".{file.name}.new")
        with draft.open("wb") as out:
            body = msgspec.json.encode([*(one for one in known if one not in same), *made])
            out.write(msgspec.json.format(body, indent=2))
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, file)
    return same
