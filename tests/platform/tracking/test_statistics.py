"""MLflow's SQLite: what its planner knows is learned once it is large enough, beside a writer, and seldom again."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from watchkeeper.tracking.statistics import Statistics


def database(data: Path) -> sqlite3.Connection:
    (data / "mlflow").mkdir(parents=True, exist_ok=True)
    found = sqlite3.connect(data / "mlflow" / "mlflow.db", isolation_level=None)
    found.execute("PRAGMA journal_mode = WAL")
    found.execute("CREATE TABLE IF NOT EXISTS tags (trace TEXT, key TEXT, value TEXT, PRIMARY KEY (key, trace))")
    return found


def fill(found: sqlite3.Connection, first: int, count: int) -> None:
    found.execute("BEGIN")
    rows = ((f"tr-{number}", f"key{number % 7}", "x" * 400) for number in range(first, first + count))
    found.executemany("INSERT INTO tags VALUES (?, ?, ?)", rows)
    found.execute("COMMIT")


def test_nothing_is_made_where_there_is_none_and_a_small_one_needs_none(tmp_path: Path) -> None:
    assert not Statistics(tmp_path).tend()
    assert list(tmp_path.iterdir()) == []
    with closing(database(tmp_path)) as found:
        fill(found, 0, 100)
        assert not Statistics(tmp_path).tend()


def test_it_is_learned_beside_an_open_writer_in_no_time_and_again_once_it_has_grown(
    tmp_path: Path, bounded: Callable[..., None]
) -> None:
    """In no time: beside all that there is to learn."""
    with closing(database(tmp_path)) as found:
        fill(found, 0, 40_000)
        statistics = Statistics(tmp_path)
        assert statistics.tend()
        assert found.execute("SELECT count(*) FROM sqlite_stat1").fetchone()[0] > 0
        fill(found, 40_000, 1_000)
        assert not statistics.tend()
        fill(found, 41_000, 140_000)
        assert statistics.tend()
        bounded(lambda: Statistics(tmp_path).tend(), lambda: found.execute("ANALYZE"), times=0.25)
        found.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            Statistics(tmp_path).tend()
        found.execute("ROLLBACK")
