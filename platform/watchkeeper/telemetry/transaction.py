"""One transaction on a SQLite database: all of it or nothing."""

import contextlib
import sqlite3
from types import TracebackType


class Transaction:
    """All or nothing. (A generator of contextlib's would take as long as a row does.)"""

    __slots__ = ("_database",)

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            try:
                self._database.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")
