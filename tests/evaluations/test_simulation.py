"""Simulated tables have the difference, the sessions and the losses that they are said to have."""

import subprocess
import sys

import numpy as np
import pytest

from watchkeeper_evaluations.simulation import SHAPES, Shape, tables


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_the_true_difference_is_as_said(shape: Shape, delta: float) -> None:
    differences = np.concatenate([table.values[1] - table.values[0] for table in tables(shape, delta, 60)])
    assert differences.mean() == pytest.approx(delta, abs=0.045)


def test_turns_of_a_session_are_alike_where_they_are_said_to_be() -> None:
    def spread(together: float) -> float:
        shape = Shape("", 60, 8, together=together)
        found = tables(shape, 0.0, 30)
        return float(np.mean([np.bincount(table.sessions, table.values[1] - table.values[0]).var() for table in found]))

    assert spread(0.9) > 3 * spread(0.0)


def test_rows_fail_and_lack_values_as_often_as_said() -> None:
    shape = Shape("", 400, failed=0.05, missing=0.2)
    base, candidate = next(iter(tables(shape, 0.0, 1))).rows()
    for rows in (base, candidate):
        assert np.mean([row.failed for row in rows]) == pytest.approx(0.05, abs=0.03)
        assert np.mean([row.values["measured"] is None for row in rows]) == pytest.approx(0.2, abs=0.06)


def test_it_prints_the_readmes_table() -> None:
    command = [sys.executable, "-m", "watchkeeper_evaluations.simulation", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines[1:]] == [shape.name for shape in SHAPES]
