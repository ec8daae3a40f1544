"""The lake: Delta tables in a folder or an object store. Appended exactly once, read with SQL.

Each table of `tables.TABLES` is a Delta table `<uri>/<table>`, made at its first append and partitioned by UTC `date`.
Reading is DuckDB in memory over the files of one table version, so that readers never lock writers out nor see half a
commit. A table in a local folder is read by DuckDB's own parquet reader; one behind a URL (`s3://…`, `file://…`) through
deltalake's Arrow dataset, because DuckDB would need an extension that is not in its package. Tests cover folders only: an
S3 server was tried by hand, with `storage_options` as deltalake understands them (`AWS_ENDPOINT_URL`, …).

Knows nothing of what the columns mean.
"""

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from watchkeeper.lake.tables import TABLES, TIME
from watchkeeper.record import SCHEMA_VERSION

STATISTICS: Final = (
    *("request_id", "received_at", "scored_at", "bucket", "evaluated_at", "at", "started_at", "compared_at"),
)
"""The columns whose smallest and largest value stand in the Delta log. The log outlives erased rows: no text here."""

UNSPEAKABLE: Final = frozenset("[]^|\\")
"""Characters of a folder's name on which deltalake's Rust part panics."""

QUICK: Final = WriterProperties(compression="ZSTD", compression_level=1)
"""Of a batch that will be joined with others soon."""

ZSTD: Final = WriterProperties(compression="ZSTD", compression_level=3)
"""Of rows that stay."""

SORTED: Final = WriterProperties(compression="ZSTD", compression_level=3, max_row_group_size=4096)
"""Of tables whose rows lie in the order in which they are asked for: a reader skips the row groups it needs nothing of."""

LOOKS: Final = 4
"""So often a reader looks again whose files went away under it."""

FOOTERS: Final = 512
"""So many files' footers are kept for the next query (80 KB each). DuckDB never forgets one, so then it starts anew."""

HISTORY_S: Final = 7_200
"""How long older versions stay readable where nothing else is set. Each commit is a file in the log, and each append and
each reader lists them: 4 µs each, at a commit every two seconds 14 ms for two hours, 160 ms for a day."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]+")

APPENDED: Final = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
"""An append leaves the log as long as it is: looking whether some of it can go costs as much again (see `trim`)."""

ATTEMPTS: Final = 20
T = TypeVar("T")


_LASTING: Final = ("delta.logRetentionDuration", "delta.deletedFileRetentionDuration")
"""How long the log, and what it says of deleted files, is kept."""


class LakeUnavailable(Exception):
    """The lake cannot be read or written just now; the message is one line that names the table."""


class LakeTooNew(LakeUnavailable):
    """A later version of Watchkeeper wrote what would have to be understood; the message is one line."""


class Lake:
    """The tables under one URI. One object may be used by many threads, and many processes may use one URI."""

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().absolute())
        self._options = dict(storage_options or {})
        self._held = threading.local()
        self._lock = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None
        self._footers: set[str] = set()

    def append(
        self,
        table: str,
        rows: pa.Table,
        *,
        app_id: str | None = None,
        version: int | None = None,
        first: int | None = None,
    ) -> bool:
        """Appends `rows` in one commit, and whether it did. With `app_id` and `version`: only if no version as high was
        appended before; with `first`, none as high as that, for rows that stand for all versions from there on.

        Versions of one `app_id` must rise, and one writer at a time uses an `app_id`. Rows are brought into the table's
        schema: a missing column becomes null, an unknown one or a type that does not fit is a `ValueError`.
        """
        if (app_id is None) != (version is None):
            raise ValueError("app_id and version belong together")
        if app_id is None or version is None:
            return self._append(table, rows, {}, {})
        return self._append(table, rows, {app_id: version}, {app_id: version if first is None else first})

    def append_together(self, table: str, rows: pa.Table, versions: Mapping[str, int]) -> bool:
        """Appends `rows` in one commit for several app_ids at once, and whether it did: only if of none of them a version
        as high was appended before. All or nothing: where one is taken, the others stay free."""
        return self._append(table, rows, versions, versions)

    def _append(self, table: str, rows: pa.Table, versions: Mapping[str, int], taken_from: Mapping[str, int]) -> bool:
        """`taken_from`: the version of each app_id from which on it counts as appended before."""
        rows = _conform(table, rows)
        if rows.num_rows == 0 and not versions:
            return True

        def commit() -> bool:
            delta = self._created(table)
            done = {app_id: delta.transaction_version(app_id) for app_id in versions}
            if any(last is not None and last >= taken_from[app_id] for app_id, last in done.items()):
                return False
            properties = None
            if versions:
                properties = CommitProperties(app_transactions=[Transaction(*entry) for entry in versions.items()])
            write_deltalake(
                delta,
                rows,
                mode="append",
                schema_mode="merge",
                commit_properties=properties,
                writer_properties=QUICK,
                post_commithook_properties=APPENDED,
            )
            return True

        return self._retried(table, commit)

    def rewrite(self, table: str, day: date, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replaces the rows of one day by `change(rows)`, in one commit that loses nothing appended meanwhile.

        `change` may be called again when another writer was first. Raises `LakeTooNew` where rows were written by a version
        after ours: what we do not know of them would be lost.
        """

        def commit() -> None:
            delta = self._created(table)
            snapshot = {table: delta.version()}
            rows = self.query(f'SELECT * FROM "{table}" WHERE date = $day', {"day": day}, version=snapshot)
            newest = pc.max(rows.column("schema_version")).as_py() or 0
            unknown = {field.name for field in delta.schema().fields} - set(TABLES[table].names)
            if unknown or newest > SCHEMA_VERSION:
                raise LakeTooNew(f"{self._place(table)}: {_written_later(newest, unknown)}: it is not rewritten")
            write_deltalake(
                delta,
                _conform(table, change(rows)),
                mode="overwrite",
                schema_mode="merge",
                predicate=f"date = '{day}'",
                writer_properties=SORTED,
            )

        self._retried(table, commit)

    def compact(self, table: str, size: int) -> None:
        """Joins, day by day, files smaller than `size` bytes into files of about that size. Old versions stay readable."""

        def join() -> None:
            delta = self._opened(table)
            if delta is not None:
                delta.optimize.compact(target_size=size, writer_properties=ZSTD)

        self._retried(table, join)

    def delete(self, table: str, column: str, values: Iterable[str]) -> int:
        """Deletes the rows whose `column` is one of `values`, in one commit that loses nothing appended meanwhile; how many
        they were. Old versions hold them until a `vacuum`. `values` stand in the table's log: ids, never a text."""
        wanted = sorted(set(values))
        wrong = next((value for value in wanted if not _ID.fullmatch(value)), None)
        if wrong is not None or column not in TABLES[table].names:
            raise ValueError(f"rows are deleted by ids in a column, not by {column} = {wrong!r}")
        predicate = f"{column} IN ({', '.join(map(repr, wanted))})"

        def commit() -> int:
            delta = self._opened(table) if wanted else None
            if delta is None:
                return 0
            return int(delta.delete(predicate, writer_properties=ZSTD)["num_deleted_rows"])

        return self._retried(table, commit)

    def drop(self, table: str, before: date, note: Callable[[Mapping[str, int]], object] = lambda version: None) -> int:
        """Deletes the rows of all days before that one, in one commit that reads no file; how many they were. Old versions
        hold them until a `vacuum`. What is appended meanwhile stays.

        `note` is given the version (as `query` takes it) whose rows go, before they do; another one where another writer
        was first.
        """

        def commit() -> int:
            delta = self._opened(table)
            if delta is None:
                return 0
            version = {table: delta.version()}  # a query without it would bring `delta` up to date
            sql = f'SELECT count(*) AS n FROM "{table}" WHERE date < $before'
            count = int(self.query(sql, {"before": before}, version=version).column("n")[0].as_py())
            if count:
                note(version)
                delta.delete(f"date < '{before}'")
            return count

        return self._retried(table, commit)

    def vacuum(self, table: str, hours: int, *, everything: bool = False) -> None:
        """Deletes files that no version of the last `hours` hours uses; what was older can no longer be read. `everything`:
        also what no version ever used, as a crash in the middle of an append leaves it. With 0 hours that takes a file from
        under the hands of a writer: only where there is none."""

        def clean() -> None:
            delta = self._opened(table)
            if delta is not None:
                delta.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False, full=everything)

        self._retried(table, clean)

    def trim(self, table: str, seconds: int) -> None:
        """Shortens the table's log to what its versions of the last `seconds` need. Readers and writers that stand further
        back find on from the checkpoint that is made here."""
        lasting = f"interval {seconds} seconds"

        def clean() -> None:
            delta = self._opened(table)
            if delta is None:
                return
            if any(delta.metadata().configuration.get(name) != lasting for name in _LASTING):
                delta.alter.set_table_properties(dict.fromkeys(_LASTING, lasting))
            delta.create_checkpoint()
            delta.cleanup_metadata()

        self._retried(table, clean)

    def files(self, table: str) -> dict[date, list[int]]:
        """The sizes (bytes) of the table's files, by day."""
        delta = self._opened(table)
        sizes: dict[date, list[int]] = defaultdict(list)
        if delta is not None:
            actions = pa.table(delta.get_add_actions(flatten=True))
            columns = (actions.column(name).to_pylist() for name in ("partition.date", "size_bytes"))
            for day, size in zip(*columns, strict=True):
                sizes[day].append(size)
        return dict(sizes)

    def starts(self, table: str, column: str) -> dict[str, int]:
        """The table's files, each with the smallest value of a time column in it (µs); 0 where that is not known."""
        delta = self._opened(table)
        if delta is None:
            return {}
        actions = pa.table(delta.get_add_actions(flatten=True))
        least = f"min.{column}"
        known = actions.column(least) if least in actions.column_names else pa.nulls(actions.num_rows, pa.int64())
        micros = known.cast(TIME).cast(pa.int64()).fill_null(0)
        return dict(zip(actions.column("path").to_pylist(), micros.to_pylist(), strict=True))

    def transaction_version(self, table: str, app_id: str) -> int | None:
        """The highest version that `app_id` appended to the table; None: none yet."""
        return self.transaction_versions(table, (app_id,))[app_id]

    def transaction_versions(self, table: str, app_ids: Iterable[str]) -> dict[str, int | None]:
        """`transaction_version` of several, at one moment."""
        delta = self._opened(table)
        return {app_id: None if delta is None else delta.transaction_version(app_id) for app_id in app_ids}

    def newer(self, table: str) -> str | None:
        """What shows that a later version of Watchkeeper wrote to the table, in words; None: nothing does."""
        delta = self._opened(table)
        if delta is None:
            return None
        written = self.query(f'SELECT max(schema_version) AS newest FROM "{table}"').column(0)[0].as_py() or 0
        unknown = {field.name for field in delta.schema().fields} - set(TABLES[table].names)
        return _written_later(written, unknown) if unknown or written > SCHEMA_VERSION else None

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
        Values never stand in `sql` itself, and tables follow FROM or JOIN, never a comma. Cast sums of integers
        (`sum(n)::BIGINT`): DuckDB's own are 128 bits wide.
        Raises `LakeUnavailable` when a table cannot be opened, `duckdb.Error` when the SQL is wrong.
        """
        for _ in range(LOOKS):
            try:
                return self._query(sql, parameters, version or {})
            except duckdb.IOException as error:
                # A file went away between opening the table and reading it (vacuumed, or the folder made anew): look again.
                self._held.__dict__.clear()
                last = error
        raise LakeUnavailable(f"{self.uri}: a file cannot be read: {_line(last)}")

    def _query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any], versions: Mapping[str, int]) -> pa.Table:
        cursor = self._cursor()
        try:
            for table in TABLES:
                if re.search(rf'\b(FROM|JOIN)\s+"?{table}\b', sql, re.IGNORECASE):
                    self._view(cursor, table, versions.get(table))
            given = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
            return cursor.sql(sql, params=given).to_arrow_table()
        finally:
            cursor.close()

    def _view(self, cursor: duckdb.DuckDBPyConnection, table: str, version: int | None) -> None:
        """Makes `table` a view over the files of one version, with the columns of its schema."""
        delta = self._opened(table, version)
        files = delta.file_uris() if delta is not None else []
        if delta is None or not files:
            cursor.register(table, TABLES[table].empty_table())
            return
        if "://" in self.uri:
            cursor.register(f"{table} files", delta.to_pyarrow_dataset())
            scan = f'SELECT * FROM "{table} files"'
        else:
            with self._lock:
                self._footers.update(files)
            # deltalake gives paths as URLs have them.
            names = ", ".join("'" + unquote(name).replace("'", "''") + "'" for name in files)
            scan = (
                f"SELECT * FROM read_parquet([{names}], union_by_name = true, hive_partitioning = true, "
                "hive_types = {'date': DATE})"
            )
        written = {field.name for field in delta.schema().fields}
        if not written.issuperset(TABLES[table].names):
            # Written by an older version only: the columns that came since are null. Not done without need, because a
            # union keeps DuckDB from reading wide columns only of the rows that an ORDER BY … LIMIT leaves.
            cursor.register(f"{table} columns", TABLES[table].empty_table())
            scan = f'SELECT * FROM "{table} columns" UNION ALL BY NAME {scan}'
        columns = ", ".join(f'"{name}"' for name in TABLES[table].names)
        cursor.execute(f'CREATE TEMP VIEW "{table}" AS SELECT {columns} FROM ({scan})')

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the one database of this object, which holds views and footers but no rows."""
        with self._lock:
            if self._database is None or len(self._footers) > FOOTERS:
                # Air-gapped: DuckDB must not try to download an extension when a query names one. And it must not spill
                # what users wrote into a folder of its own.
                self._database = duckdb.connect(
                    config={
                        "autoinstall_known_extensions": False,
                        "autoload_known_extensions": False,
                        "temp_directory": "",
                    }
                )
                self._database.execute("SET GLOBAL TimeZone = 'UTC'")
                self._database.execute("SET GLOBAL parquet_metadata_cache = true")
                self._footers.clear()
            return self._database.cursor()

    def _place(self, table: str) -> str:
        if table not in TABLES:
            raise ValueError(f"the lake has no table {table!r}")
        if "://" not in self.uri and set(self.uri) & UNSPEAKABLE:
            raise LakeUnavailable(
                f"{self.uri}: a lake's folder cannot have one of {''.join(sorted(UNSPEAKABLE))} in its name"
            )
        return f"{self.uri}/{table}"

    def _opened(self, table: str, version: int | None = None) -> DeltaTable | None:
        """The table at its newest version, or at `version`; None: there is no such table.

        The newest is kept, one a thread, and brought up to date: opening reads the log since its last checkpoint.
        """
        place, held = self._place(table), self._held.__dict__
        delta: DeltaTable | None = held.get(table) if version is None else None
        if delta is not None:
            try:
                delta.update_incremental()
                return delta
            except (DeltaError, OSError):
                del held[table]
        try:
            delta = DeltaTable(place, version=version, storage_options=self._options)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise LakeUnavailable(f"{place}: cannot be opened: {_line(error)}") from error
        if version is None:
            held[table] = delta
        return delta

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
            configuration={
                "delta.dataSkippingStatsColumns": ",".join(c for c in STATISTICS if c in schema.names),
                **dict.fromkeys(_LASTING, f"interval {HISTORY_S} seconds"),
            },
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
    try:
        return pa.table(columns, names=schema.names).cast(schema)
    except pa.ArrowException as error:
        raise ValueError(f"rows that do not fit {table}: {_line(error)}") from error


def _written_later(newest: int, unknown: Collection[str]) -> str:
    columns = f", with columns that are not known here ({', '.join(sorted(unknown))})" if unknown else ""
    return f"written by a later version (schema {max(newest, SCHEMA_VERSION)}, ours is {SCHEMA_VERSION}){columns}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
