"""`watchkeeper compact`: few large files instead of many small ones, and none that nobody can read any more."""

from typing import Any

from watchkeeper.carrying import carrying
from watchkeeper.cli import output
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import TABLES
from watchkeeper.lake.upkeep import clean, tidy
from watchkeeper.settings import Settings, seconds


def run(settings: Settings, *, as_json: bool) -> int:
    """0 when it is done. Raises `LakeUnavailable`."""
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    before = {table: _size(lake, table) for table in TABLES if lake.version(table) is not None}
    output.note("joining files")
    with carrying(settings.data, "upkeep"):
        tidy(lake, 1)
        clean(lake, seconds(settings.lake.history), lambda table: output.note(f"cleaning {table}"))
    after = {table: _size(lake, table) for table in before}
    if as_json:
        output.document({"tables": {table: {"before": before[table], "after": after[table]} for table in before}})
    else:
        rows = ((table, *before[table].values(), *after[table].values()) for table in before)
        output.table(("table", "files before", "bytes before", "files", "bytes"), rows)
    return 0


def _size(lake: Lake, table: str) -> dict[str, Any]:
    sizes = [size for day in lake.files(table).values() for size in day]
    return {"files": len(sizes), "bytes": sum(sizes)}
