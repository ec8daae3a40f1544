"""The lake: Delta tables in a folder or an object store. Appended exactly once, read with SQL.

Each table of `tables.TABLES` is a Delta table `<uri>/<table>`, made at its first append and partitioned by UTC `date`.
Reading is DuckDB in memory over the files of one table version, so that readers never lock writers out nor see half a
commit. A table in a local folder is read by DuckDB's own parquet reader; one behind a URL (`s3://…`, `file://…`) through
deltalake's Arrow dataset, because DuckDB would need an extension that is not in its package. Only local folders are
covered by tests: object stores get `storage_options` as deltalake understands them.

Knows nothing of what the columns mean.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from watchkeeper.lake.tables import TABLES

STATISTICS: Final = ("request_id", "received_at", "scored_at", "bucket", "evaluated_at")
"""The columns whose smallest and largest value stand in the Delta log. The log outlives erased rows: no text here."""

ATTEMPTS: Final = 20
T = TypeVar("T")


class LakeUnavailable(Exception):
    """The lake cannot be read or written just now; the message is one line that names the table."""


class Lake:
    """The tables under one URI. One object may be used by many threads, and many processes may use one URI."""

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._options = dict(storage_options or {})
        self._lock = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None

    def append(self, table: str, rows: pa.Table, *, app_id: str | None = None, version: int | None = None) -> None:
        """Appends `rows` in one commit. With `app_id` and `version`: only if no version as high was appended before.

        Versions of one `app_id` must rise, and one writer at a time uses an `app_id`. Rows are brought into the table's
        schema: a missing column becomes null, an unknown one or a type that does not fit is a `ValueError`.
        """
        if (app_id is None) != (version is None):
            raise ValueError("app_id and version belong together")
        rows = _conform(table, rows)
        if rows.num_rows == 0 and app_id is None:
            return

        def commit() -> None:
            delta = self._created(table)
            properties = None
            if app_id is not None and version is not None:
                done = delta.transaction_version(app_id)
                if done is not None and done >= version:
                    return
                properties = CommitProperties(app_transactions=[Transaction(app_id, version)])
            write_deltalake(delta, rows, mode="append", schema_mode="merge", commit_properties=properties)

        self._retried(table, commit)

    def transaction_version(self, table: str, app_id: str) -> int | None:
        """The highest version that `app_id` appended to the table; None: none yet."""
        delta = self._opened(table)
        return None if delta is None else delta.transaction_version(app_id)

    def version(self, table: str) -> int | None:
        """The newest version of the table; None: there is no such table yet."""
        delta = self._opened(table)
        return None if delta is None else delta.version()

    def query(
        self,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        *,
        version: Mapping[str, int] | None = None,
    ) -> pa.Table:
        """The answer to `sql` (DuckDB's dialect, `$name` or `?` parameters; time zone UTC) as an Arrow table.

        Every table is a view of its name, empty while it does not exist. `version` reads tables as they were then.
        Raises `LakeUnavailable` when a table cannot be opened, `duckdb.Error` when the SQL is wrong.
        """
        versions = version or {}
        cursor = self._cursor()
        try:
            for table in TABLES:
                if re.search(rf"\b{table}\b", sql):
                    self._view(cursor, table, versions.get(table))
            given = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
            return cursor.sql(sql, params=given).to_arrow_table()
        except duckdb.IOException as error:
            raise LakeUnavailable(f"{self.uri}: a file cannot be read: {_line(error)}") from error
        finally:
            cursor.close()

    def _view(self, cursor: duckdb.DuckDBPyConnection, table: str, version: int | None) -> None:
        """Makes `table` a view over the files of one version, with the columns of its schema first.

        The empty relation in front gives the columns that no file has yet; filters and projections pass through it.
        """
        cursor.register(f"no_{table}", TABLES[table].empty_table())
        delta = self._opened(table, version)
        files = delta.file_uris() if delta is not None else []
        if delta is None or not files:
            scan = ""
        elif "://" in self.uri:
            cursor.register(f"all_{table}", delta.to_pyarrow_dataset())
            scan = f'UNION ALL BY NAME SELECT * FROM "all_{table}"'
        else:
            names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
            scan = (
                f"UNION ALL BY NAME SELECT * FROM read_parquet([{names}], union_by_name = true, "
                "hive_partitioning = true, hive_types = {'date': DATE})"
            )
        cursor.execute(f'CREATE TEMP VIEW "{table}" AS SELECT * FROM "no_{table}" {scan}')

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the one database of this object, which holds views and footers but no rows."""
        with self._lock:
            if self._database is None:
                # Air-gapped: DuckDB must not try to download an extension when a query names one.
                self._database = duckdb.connect(
                    config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
                )
                self._database.execute("SET GLOBAL TimeZone = 'UTC'")
                self._database.execute("SET GLOBAL parquet_metadata_cache = true")
            return self._database.cursor()

    def _place(self, table: str) -> str:
        if table not in TABLES:
            raise ValueError(f"the lake has no table {table!r}")
        return f"{self.uri}/{table}"

    def _opened(self, table: str, version: int | None = None) -> DeltaTable | None:
        try:
            return DeltaTable(self._place(table), version=version, storage_options=self._options)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise LakeUnavailable(f"{self._place(table)}: cannot be opened: {_line(error)}") from error

    def _created(self, table: str) -> DeltaTable:
        delta = self._opened(table)
        if delta is not None:
            return delta
        place, schema = self._place(table), TABLES[table]
        if "://" not in place:
            Path(place).mkdir(parents=True, exist_ok=True)
        return DeltaTable.create(
            place,
            schema=schema,
            mode="ignore",
            partition_by=["date"],
            configuration={"delta.dataSkippingStatsColumns": ",".join(c for c in STATISTICS if c in schema.names)},
            storage_options=self._options,
        )

    def _retried(self, table: str, commit: Callable[[], T]) -> T:
        """Runs a commit again, from the newest version, while other writers get theirs in first."""
        for _ in range(ATTEMPTS):
            try:
                return commit()
            except CommitFailedError as error:
                last = error
            except (DeltaError, OSError) as error:
                raise LakeUnavailable(f"{self._place(table)}: cannot be written: {_line(error)}") from error
        raise LakeUnavailable(f"{self._place(table)}: {ATTEMPTS} commits lost against others: {_line(last)}")


def _conform(table: str, rows: pa.Table) -> pa.Table:
    """`rows` with exactly the table's columns, in its order and types."""
    if table not in TABLES:
        raise ValueError(f"the lake has no table {table!r}")
    schema = TABLES[table]
    unknown = set(rows.column_names) - set(schema.names)
    if unknown:
        raise ValueError(f"{table} has no column {', '.join(sorted(unknown))}")
    if rows.schema.equals(schema):
        return rows
    columns = [
        rows.column(field.name) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, names=schema.names).cast(schema)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
