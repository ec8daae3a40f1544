"""The lake as its users meet it: appended once, read whole, by many at a time, from any version."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.lake.tables import INTERACTIONS, TABLES
from watchkeeper.record import Record

NOON = 1_780_056_000_000_000
"""2026-05-29 12:00 UTC, in microseconds."""


def rows(*names: str, at: int = NOON, text: str = "") -> pa.Table:
    return to_arrow([Record(request_id=name, received_at=at, prompt_text=text) for name in names])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "the lake's own 50% *?é"))


def names(lake: Lake, **options: dict[str, int]) -> list[str]:
    found = lake.query("SELECT request_id FROM interactions ORDER BY request_id", **options)
    ids: list[str] = found.column(0).to_pylist()
    return ids


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_does_not_exist_yet_is_empty_and_has_its_columns(lake: Lake, table: str) -> None:
    found = lake.query(f"SELECT * FROM {table}")
    assert found.num_rows == 0
    assert found.column_names == TABLES[table].names
    assert lake.version(table) is None
    assert lake.transaction_version(table, "shipper") is None
    assert not Path(lake.uri).exists(), "reading makes no folders"


def test_what_was_appended_is_read_in_utc_with_its_types(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    lake.append("interactions", rows("a"))
    found = lake.query("SELECT *, received_at::VARCHAR AS shown FROM interactions")
    assert found.column("shown").to_pylist() == ["2026-05-29 12:00:00+00"]
    assert found.column("received_at").to_pylist() == [datetime(2026, 5, 29, 12, tzinfo=UTC)]
    assert found.column("date").to_pylist() == [date(2026, 5, 29)]
    for name in INTERACTIONS.names:
        kind = INTERACTIONS.field(name).type
        assert found.schema.field(name).type == kind or pa.types.is_nested(kind), name
    assert [path.name for path in Path(lake.uri, "interactions").glob("date=*")] == ["date=2026-05-29"]


def test_a_batch_over_midnight_lies_in_two_days(lake: Lake) -> None:
    day = 86_400_000_000
    lake.append("interactions", pa.concat_tables([rows("a"), rows("b", at=NOON + day)]))
    assert set(lake.files("interactions")) == {date(2026, 5, 29), date(2026, 5, 30)}
    found = lake.query("SELECT request_id FROM interactions WHERE date = $day", {"day": date(2026, 5, 30)})
    assert found.column(0).to_pylist() == ["b"]


def test_a_batch_that_comes_again_is_taken_once(lake: Lake) -> None:
    for version in (0, 0, 1, 1, 0):
        lake.append("interactions", rows(f"batch {version}"), app_id="shipper", version=version)
    lake.append("interactions", rows("another's"), app_id="another", version=0)
    lake.append("interactions", rows("nobody's"))
    assert names(lake) == ["another's", "batch 0", "batch 1", "nobody's"]
    assert lake.transaction_version("interactions", "shipper") == 1
    assert lake.transaction_version("scores", "shipper") is None, "each table counts for itself"


def test_an_empty_batch_moves_the_version_too(lake: Lake) -> None:
    lake.append("interactions", rows(), app_id="shipper", version=7)
    assert lake.transaction_version("interactions", "shipper") == 7
    assert names(lake) == []


def test_a_version_needs_its_app(lake: Lake) -> None:
    with pytest.raises(ValueError, match="belong together"):
        lake.append("interactions", rows("a"), version=1)


def test_rows_that_do_not_fit_are_refused_before_anything_is_written(lake: Lake) -> None:
    with pytest.raises(ValueError, match="no column nonsense"):
        lake.append("interactions", pa.table({"nonsense": [1]}))
    for misfit in ("many", {"a": 1}):
        with pytest.raises(ValueError, match="do not fit interactions"):
            lake.append("interactions", pa.table({"status": [misfit]}))
    with pytest.raises(ValueError, match="no table 'nonsense'"):
        lake.append("nonsense", rows("a"))
    assert lake.version("interactions") is None


def test_missing_columns_become_null(lake: Lake) -> None:
    lake.append("interactions", pa.table({"request_id": ["a"], "date": [date(2026, 5, 29)]}))
    assert lake.query("SELECT status, stages FROM interactions").to_pylist() == [{"status": None, "stages": None}]


def test_an_older_version_is_read_as_it_was(lake: Lake) -> None:
    lake.append("interactions", rows("a"))
    before = lake.version("interactions")
    assert before is not None
    lake.append("interactions", rows("b"))
    assert names(lake, version={"interactions": before}) == ["a"]
    assert names(lake) == ["a", "b"]


@pytest.mark.parametrize("hostile", ["'; DROP TABLE interactions; --", "ö\n\0x", "$name ? %s"])
def test_values_are_parameters(lake: Lake, hostile: str) -> None:
    lake.append("interactions", rows("a", text=hostile))
    by_name = lake.query("SELECT request_id FROM interactions WHERE prompt_text = $it", {"it": hostile})
    by_place = lake.query("SELECT request_id FROM interactions WHERE prompt_text = ?", [hostile])
    assert by_name.column(0).to_pylist() == by_place.column(0).to_pylist() == ["a"]


def test_wrong_sql_is_the_callers_error(lake: Lake) -> None:
    with pytest.raises(duckdb.Error):
        lake.query("SELECT nonsense FROM interactions")


def test_the_log_holds_no_text(lake: Lake) -> None:
    """Rows can be erased; the log of what files there were stays."""
    lake.append("interactions", rows("a", text="my number is 079 444 55 66"))
    log = Path(lake.uri, "interactions", "_delta_log")
    assert all(b"079 444" not in file.read_bytes() for file in log.iterdir())
    entry = json.loads((log / "00000000000000000001.json").read_text().splitlines()[1])
    assert json.loads(entry["add"]["stats"])["minValues"] == {"received_at": "2026-05-29T12:00:00Z", "request_id": "a"}


@pytest.fixture
def old(lake: Lake) -> Lake:
    """A lake whose table was made before the columns `support` and `verdicts`, and has one that is no more."""
    table = rows("old").drop_columns(["support", "verdicts"]).append_column("dropped", pa.array(["x"]))
    write_deltalake(f"{lake.uri}/interactions", table, partition_by=["date"])
    return lake


def test_columns_that_came_later_are_null_in_old_files(old: Lake) -> None:
    found = old.query("SELECT * FROM interactions WHERE support IS NULL")
    assert found.column_names == INTERACTIONS.names
    assert found.column("request_id").to_pylist() == ["old"]


def test_new_rows_extend_an_old_table(old: Lake) -> None:
    old.append("interactions", to_arrow([Record(request_id="new", received_at=NOON, support=0.5)]))
    found = old.query("SELECT request_id, support FROM interactions ORDER BY request_id")
    assert found.to_pylist() == [{"request_id": "new", "support": 0.5}, {"request_id": "old", "support": None}]


def test_a_lake_behind_a_url_reads_the_same(tmp_path: Path) -> None:
    lake = Lake((tmp_path / "lake").as_uri())
    assert lake.query("SELECT count(*) AS n FROM interactions").to_pylist() == [{"n": 0}]
    lake.append("interactions", rows("a", "b"), app_id="shipper", version=1)
    lake.append("interactions", rows("c", at=NOON + 86_400_000_000))
    assert names(lake) == names(Lake(str(tmp_path / "lake"))) == ["a", "b", "c"]
    found = lake.query("SELECT request_id FROM interactions WHERE date > $day", {"day": date(2026, 5, 29)})
    assert found.column(0).to_pylist() == ["c"]


def test_a_damaged_table_is_one_line(lake: Lake) -> None:
    lake.append("interactions", rows("a"))
    for file in Path(lake.uri, "interactions").glob("date=*/*.parquet"):
        file.unlink()
    with pytest.raises(LakeUnavailable, match="cannot be read") as caught:
        names(lake)
    assert "\n" not in str(caught.value)
    (Path(lake.uri, "interactions", "_delta_log") / "00000000000000000001.json").write_text("no json")
    for use in (names, lambda one: one.append("interactions", rows("b"))):
        with pytest.raises(LakeUnavailable, match="interactions: cannot be"):
            use(Lake(lake.uri))


def test_a_folder_that_deltalake_cannot_have_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LakeUnavailable, match="cannot have one of"):
        Lake(str(tmp_path / "[x]")).append("interactions", rows("a"))


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lake = Lake("here")
    lake.append("interactions", rows("a"))
    monkeypatch.chdir("/")
    assert names(lake) == ["a"]


def test_a_lake_made_anew_under_a_reader_is_seen(lake: Lake) -> None:
    reader = Lake(lake.uri)
    for name in "abc":
        lake.append("interactions", rows(name))
    assert names(reader) == ["a", "b", "c"]
    shutil.rmtree(lake.uri)
    Lake(lake.uri).append("interactions", rows("d"))
    assert names(reader) == ["d"]


def test_a_long_life_among_changing_files_leaves_nothing_behind(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """DuckDB keeps what it learned of every file it ever saw: a new one is taken now and then, also under way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("watchkeeper.lake.lake.FOOTERS", 2)
    for number in range(6):
        lake.append("interactions", rows(str(number)))
        assert names(lake) == [str(name) for name in range(number + 1)]
    assert [path.name for path in tmp_path.iterdir()] == [Path(lake.uri).name], "no folder for spilled rows"


def test_one_lake_serves_many_threads(lake: Lake) -> None:
    for name in "abc":
        lake.append("interactions", rows(name))
    with ThreadPoolExecutor(8) as pool:
        versions = [pool.submit(names, lake, version={"interactions": number % 4}) for number in range(40)]
    assert [future.result() for future in versions] == [list("abc")[: number % 4] for number in range(40)]


APPENDER = """
import sys
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.interactions import to_arrow
from watchkeeper.record import Record
lake, app, who = Lake(sys.argv[1]), sys.argv[2], sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
for version in range(15):
    one = to_arrow([Record(request_id=f"{who} {version}", received_at=1_780_056_000_000_000)])
    lake.append("interactions", one, app_id=app, version=version)
"""


def appended_by_two(lake: Lake, apps: tuple[str, str]) -> list[str]:
    """The ids in the lake after two processes appended 15 batches each, from the first commit on at the same time."""
    command = [sys.executable, "-c", APPENDER, lake.uri]
    processes = [
        subprocess.Popen([*command, app, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number, app in enumerate(apps)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    return names(lake)


def test_two_processes_append_at_once_and_lose_nothing(lake: Lake) -> None:
    found = appended_by_two(lake, ("shipper", "job"))
    assert found == sorted(f"{who} {version}" for who in range(2) for version in range(15))


def test_two_processes_that_both_think_they_are_the_shipper_append_each_batch_once(lake: Lake) -> None:
    found = appended_by_two(lake, ("shipper", "shipper"))
    assert sorted(int(name.split()[1]) for name in found) == list(range(15))


def test_a_rewrite_loses_nothing_that_is_appended_meanwhile(lake: Lake) -> None:
    lake.append("interactions", rows("a", "b"))
    lake.append("interactions", rows("other day", at=NOON + 86_400_000_000))
    interrupted: list[Callable[[], object]] = [lambda: lake.append("interactions", rows("meanwhile"))]

    def without_b(table: pa.Table) -> pa.Table:
        if interrupted:
            thread = threading.Thread(target=interrupted.pop())
            thread.start()
            thread.join()
        return table.filter(pa.compute.not_equal(table.column("request_id"), "b"))

    lake.rewrite("interactions", date(2026, 5, 29), without_b)
    assert names(lake) == ["a", "meanwhile", "other day"]


def test_joined_files_read_the_same_and_old_versions_stay(lake: Lake) -> None:
    for number in range(6):
        lake.append("interactions", rows(str(number)))
    lake.compact("interactions", 1_000_000)
    assert [len(sizes) for sizes in lake.files("interactions").values()] == [1]
    assert names(lake) == list("012345")
    assert names(lake, version={"interactions": 3}) == list("012")
    lake.vacuum("interactions", 0)
    assert names(lake) == list("012345")
    assert len(list(Path(lake.uri).rglob("*.parquet"))) == 1


def test_rows_that_stand_for_several_versions_are_refused_when_one_of_them_is_taken(lake: Lake) -> None:
    assert lake.append("interactions", rows("1", "2"), app_id="windows", version=2, first=1)
    assert not lake.append("interactions", rows("2", "3"), app_id="windows", version=3, first=2)
    assert lake.append("interactions", rows("3", "4"), app_id="windows", version=4, first=3)
    assert not lake.append("interactions", rows("4"), app_id="windows", version=4)
    assert names(lake) == ["1", "2", "3", "4"]


def test_files_and_where_they_start(lake: Lake) -> None:
    assert lake.starts("interactions", "received_at") == {}
    lake.append("interactions", rows("a", "b"))
    lake.append("interactions", rows("c", at=NOON + 86_400_000_000))
    assert sorted(lake.starts("interactions", "received_at").values()) == [NOON, NOON + 86_400_000_000]
    # A column without statistics in the log.
    assert set(lake.starts("interactions", "total_ms").values()) == {0}


def test_one_commit_for_several_is_all_or_nothing(lake: Lake) -> None:
    assert lake.append_together("interactions", rows("both"), {"a": 1, "b": 5})
    assert lake.transaction_versions("interactions", ["a", "b", "c"]) == {"a": 1, "b": 5, "c": None}
    assert not lake.append_together("interactions", rows("one is taken"), {"a": 2, "b": 5})
    assert lake.transaction_version("interactions", "a") == 1, "the other stays free"
    assert lake.append("interactions", rows("alone"), app_id="a", version=2)
    assert lake.append_together("interactions", rows("next"), {"a": 3, "b": 6})
    assert names(lake) == ["alone", "both", "next"]


def test_deleted_rows_are_those_of_the_ids_and_no_text_can_be_given(lake: Lake) -> None:
    assert lake.delete("interactions", "request_id", ["a"]) == 0, "there is no table"
    lake.append("interactions", rows("a", "b"))
    lake.append("interactions", rows("c", at=NOON + 86_400_000_000))
    assert lake.delete("interactions", "request_id", ["a", "c", "unknown"]) == 2
    assert lake.delete("interactions", "request_id", []) == 0
    assert names(lake) == ["b"]
    with pytest.raises(ValueError, match="by ids in a column"):
        lake.delete("interactions", "request_id", ["' OR true"])


def test_thousands_of_ids_are_deleted_in_one_commit_each_and_others_lose_nothing(lake: Lake) -> None:
    many = [f"{number:032x}" for number in range(3000)]
    lake.append("interactions", rows(*many, "kept"))
    before = lake.version("interactions") or 0
    assert lake.delete("interactions", "request_id", many) == 3000
    assert lake.version("interactions") == before + 1
    assert names(lake) == ["kept"]


def test_days_are_dropped_whole_and_what_they_said_is_gone_from_every_file(lake: Lake) -> None:
    day = 86_400_000_000
    lake.append("interactions", rows("old", at=NOON - day, text="my number is 079 444 55 66"))
    lake.append("interactions", rows("new"))
    assert lake.drop("interactions", date(2026, 5, 28)) == 0
    version = lake.version("interactions")
    assert lake.drop("interactions", date(2026, 5, 29)) == 1
    assert lake.drop("interactions", date(2026, 5, 29)) == 0
    assert names(lake) == ["new"]
    assert lake.version("interactions") == (version or 0) + 1
    assert lake.drop("scores", date(2026, 5, 29)) == 0, "there is no table"
    lake.vacuum("interactions", 0)
    assert all(b"444 55" not in path.read_bytes() for path in Path(lake.uri).rglob("*") if path.is_file())
