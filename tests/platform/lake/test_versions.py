"""Lakes of other versions of Watchkeeper: written before a column was there, or by a version that has more."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from watchkeeper.lake.interactions import DAY, to_arrow
from watchkeeper.lake.lake import Lake, LakeTooNew
from watchkeeper.lake.rollup import Rollups, roll_up
from watchkeeper.lake.tables import INTERACTIONS
from watchkeeper.lake.upkeep import tidy
from watchkeeper.record import SCHEMA_VERSION, Record, Stage

START = 20_602 * DAY


def records(*names: str) -> list[Record]:
    stages = (Stage("route", 0.0, 2.0),)
    return [Record(request_id=name, received_at=START, total_ms=8.0, prompt_text="hello", stages=stages) for name in names]


def newer(rows: pa.Table) -> pa.Table:
    """`rows` as a version after ours would write them: a column more, a field more in each stage."""
    rows = rows.append_column("mood", pa.array(["good"] * rows.num_rows))
    if "stages" in rows.column_names:
        later = [[{**stage, "host": "h1"} for stage in stages] for stages in rows.column("stages").to_pylist()]
        kind = pa.list_(pa.struct([*INTERACTIONS.field("stages").type.value_type, ("host", pa.string())]))
        rows = rows.set_column(rows.column_names.index("stages"), "stages", pa.array(later, kind))
    place = rows.column_names.index("schema_version")
    return rows.set_column(place, "schema_version", pa.array([SCHEMA_VERSION + 1] * rows.num_rows, pa.int32()))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def raw(lake: Lake, table: str) -> list[dict[str, Any]]:
    """What the files say, read by somebody else."""
    rows = DeltaTable(f"{lake.uri}/{table}").to_pyarrow_table()
    found: list[dict[str, Any]] = rows.sort_by("request_id" if "request_id" in rows.column_names else "part").to_pylist()
    return found


def test_a_newer_lake_is_read_extended_and_joined_without_losing_what_we_do_not_know(lake: Lake) -> None:
    write_deltalake(f"{lake.uri}/interactions", newer(to_arrow(records("a", "b"))), partition_by=["date"])
    lake.append("interactions", to_arrow(records("c")))
    found = lake.query("SELECT * FROM interactions ORDER BY request_id")
    assert found.column_names == INTERACTIONS.names
    assert found.column("request_id").to_pylist() == ["a", "b", "c"]
    tidy(lake, 1)
    assert [len(sizes) for sizes in lake.files("interactions").values()] == [1]
    lake.delete("interactions", "request_id", ["b"])
    a, c = raw(lake, "interactions")
    assert (a["request_id"], a["mood"], a["stages"][0]["host"]) == ("a", "good", "h1")
    assert (c["request_id"], c["mood"], c["stages"][0]["host"]) == ("c", None, None)
    assert [row["schema_version"] for row in (a, c)] == [SCHEMA_VERSION + 1, SCHEMA_VERSION]


def test_newer_rollups_are_read_and_never_summed_by_us(lake: Lake) -> None:
    """A sum of ours would lack what we do not know of."""
    write_deltalake(f"{lake.uri}/rollups", newer(roll_up(records("a"))), partition_by=["date"])
    for name in "bcd":
        lake.append("rollups", roll_up(records(name)))
    before = sorted(map(str, raw(lake, "rollups")))
    tidy(lake, 1)
    assert sorted(map(str, raw(lake, "rollups"))) == before
    read = Rollups.read(lake, START, START + 1)
    assert read.n.tolist() == [4]
    assert read.percentile("route", 0.5) == pytest.approx(2, rel=0.02)


def test_a_later_version_is_told(lake: Lake) -> None:
    assert lake.newer("interactions") is None
    lake.append("interactions", to_arrow(records("a")))
    assert lake.newer("interactions") is None
    write_deltalake(f"{lake.uri}/interactions", newer(to_arrow(records("b"))), mode="append", schema_mode="merge")
    told = lake.newer("interactions") or ""
    assert f"schema {SCHEMA_VERSION + 1}, ours is {SCHEMA_VERSION}" in told
    assert "(mood)" in told
    with pytest.raises(LakeTooNew, match="it is not rewritten"):
        lake.rewrite("interactions", date(2026, 5, 29), lambda rows: rows)


def older(rows: pa.Table) -> pa.Table:
    """`rows` as a version before ours wrote them: without `status` and `retrieved`, and without the status of a stage."""
    kind = pa.list_(pa.struct([field for field in INTERACTIONS.field("stages").type.value_type if field.name != "status"]))
    stages = [
        [{k: v for k, v in one.items() if k != "status"} for one in each] for each in rows.column("stages").to_pylist()
    ]
    rows = rows.set_column(rows.column_names.index("stages"), "stages", pa.array(stages, kind))
    return rows.drop_columns(["status", "retrieved"])


def test_an_older_lake_reads_with_null_is_extended_and_joined(lake: Lake) -> None:
    write_deltalake(f"{lake.uri}/interactions", older(to_arrow(records("a", "b"))), partition_by=["date"])
    sql = "SELECT request_id, status, retrieved, stages[1].status AS stage, stages[1].ms AS ms FROM interactions ORDER BY 1"
    old = {"status": None, "retrieved": None, "stage": None, "ms": 2.0}
    assert lake.query(sql).to_pylist() == [{"request_id": name, **old} for name in "ab"]
    lake.append("interactions", to_arrow(records("c")))
    expected = [*({"request_id": name, **old} for name in "ab")]
    expected += [{"request_id": "c", "status": 200, "retrieved": None, "stage": "ok", "ms": 2.0}]
    assert lake.query(sql).to_pylist() == expected
    tidy(lake, 1)
    assert lake.query(sql).to_pylist() == expected
    assert [len(sizes) for sizes in lake.files("interactions").values()] == [1]
