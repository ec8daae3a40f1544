"""What SQLite's planner knows of the database of the server that `up` starts: without it a search in MLflow's UI walks
whole tables (a rare tag among 200,000 traces: 283 ms instead of 32, a word in their spans: over 40 s instead of 0.3).

It looks at no more than a sample of each index, so a writer waits for milliseconds. A server that runs takes in what is
learned first, since a table comes with it; what is learned later, when it starts the next time.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

ROWS: Final = 1_000
"""Of each index, at most; and a database of fewer pages is quick without."""

GROWN: Final = 4
"""Times larger than when it was last looked at, and the sample is taken anew: shares change little while it grows."""

BUSY_MS: Final = 1_000
"""Longer than that nobody is waited for; the next time finds the same to do."""


class Statistics:
    """Of the database under one data folder, where there is one."""

    def __init__(self, data: Path) -> None:
        self._file = (data / "mlflow" / "mlflow.db").absolute()
        self._pages = 0

    def tend(self) -> bool:
        """Learns anew where it is time; whether it was. Raises `sqlite3.Error` when others kept the database busy."""
        if not self._file.exists():
            return False
        connection = sqlite3.connect(f"{self._file.as_uri()}?mode=rw", uri=True, timeout=BUSY_MS / 1000)
        with contextlib.closing(connection) as database:
            pages = int(database.execute("PRAGMA page_count").fetchone()[0])
            if pages < max(ROWS, GROWN * self._pages):
                return False
            database.execute(f"PRAGMA analysis_limit = {ROWS}")
            database.execute("ANALYZE")
            self._pages = pages
        return True
