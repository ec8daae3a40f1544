"""What is erased from the lake is in no file of it and in no log, at no version; all else is as it was."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from watchkeeper.feedback import Feedback
from watchkeeper.lake import erasure
from watchkeeper.lake.feedback import feedback_rows
from watchkeeper.lake.interactions import DAY, to_arrow
from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.record import Record

START = 20_602 * DAY
PLANTED = "zyxplanted"


def record(number: int, user: str | None, session: str | None, **more: Any) -> Record:
    text = PLANTED if user == "ana" else "kept"
    at = START + number * DAY // 8
    return Record(
        request_id=f"{number:032x}", received_at=at, prompt_text=text, output_text=text, user=user, session=session, **more
    )


def bodies(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()
            if path.suffix == ".parquet":
                yield str(pq.ParquetFile(path).read().to_pydict()).encode()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three days of ana, ben and somebody whom nobody knows, in two batches; ana in two tenants."""
    lake = Lake(str(tmp_path / "lake"))
    first = [record(n, "ana" if n % 2 else "ben", f"s{n}") for n in range(8)]
    second = [
        record(8, None, "s1"),
        record(9, None, "s7", tenant="other"),
        record(10, "ana", "s10", tenant="other"),
        record(11, "ana", "[EMAIL]"),
        record(12, "carl", "[EMAIL]"),
        record(13, None, "s0", source="replay", tags={"case": "c", "experiment": "e", "request": f"{1:032x}"}),
    ]
    for batch in (first, second):
        lake.append("interactions", to_arrow(batch))
    said = [
        Feedback(feedback_id="f1", request_id=f"{0:032x}", received_at=START, comment=PLANTED, user="ana", score=1.0),
        Feedback(feedback_id="f2", request_id=f"{1:032x}", received_at=START, comment=PLANTED, user="ben", score=1.0),
        Feedback(feedback_id="f3", request_id=f"{2:032x}", received_at=START, comment="kept", user="ben", score=1.0),
    ]
    lake.append("feedback", feedback_rows(said))
    return lake


def numbers(ids: Iterable[str]) -> list[int]:
    return sorted(int(name, 16) for name in ids)


def test_what_belongs_to_a_user_is_found(lake: Lake) -> None:
    anas = erasure.requests_of(lake, ["ana", "nobody"], None)
    assert numbers(anas) == [1, 3, 5, 7, 10, 11]
    assert numbers(erasure.requests_of(lake, ["ana", "nobody"], "other")) == [10]
    assert anas[f"{1:032x}"] == START + DAY // 8
    sessions = erasure.sessions_of(lake, anas)
    assert sorted(sessions) == [("default", f"s{n}") for n in (1, 3, 5, 7)] + [("other", "s10")]
    assert numbers(erasure.followers(lake, sessions)) == [1, 3, 5, 7, 8, 10], "8 goes on where 1 began"
    assert erasure.followers(lake, {}) == {}
    assert erasure.feedback_of(lake, ["ana"]) == {"f1": f"{0:032x}"}
    assert numbers(erasure.known(lake, [f"{2:032x}", f"{99:032x}"])) == [2]
    assert numbers(erasure.replays(lake, [f"{1:032x}"], ())) == numbers(erasure.replays(lake, (), ["c"])) == [13]
    assert erasure.replays(lake, [f"{2:032x}"], ["d"]) == frozenset()


def test_what_is_erased_is_in_no_file_and_at_no_version(lake: Lake, tmp_path: Path) -> None:
    before = lake.version("interactions")
    assert before is not None
    crashed = tmp_path / "lake" / "interactions" / "date=2026-05-29" / "part-of-a-crashed-append.parquet"
    crashed.write_bytes(PLANTED.encode())
    gone = erasure.erase(lake, erasure.requests_of(lake, ["ana", "nobody"], None), erasure.feedback_of(lake, ["ana"]))
    assert gone == {"interactions": 6, "scores": 0, "feedback": 2}
    versions = erasure.purge(lake, alone=True)
    assert versions["interactions"] > before
    assert not any(PLANTED.encode() in body for body in bodies(tmp_path))
    kept = lake.query("SELECT prompt_text FROM interactions").column(0).to_pylist()
    assert kept == ["kept"] * 8
    assert lake.query("SELECT feedback_id FROM feedback").column(0).to_pylist() == ["f3"]
    with pytest.raises(LakeUnavailable):
        lake.query("SELECT * FROM interactions", version={"interactions": before})
    again = erasure.erase(lake, [f"{1:032x}"], ["f1"])
    assert not any(again.values())


def test_beside_writers_the_files_of_a_batch_under_way_stay(lake: Lake, tmp_path: Path) -> None:
    under_way = tmp_path / "lake" / "interactions" / "date=2026-05-29" / "part-under-way.parquet"
    under_way.write_bytes(b"to be committed in a moment")
    erasure.erase(lake, erasure.requests_of(lake, ["ana", "nobody"], None), ())
    erasure.purge(lake, alone=False)
    assert under_way.exists()
    under_way.unlink()
    assert not any(PLANTED.encode() in body for body in bodies(tmp_path / "lake" / "interactions"))


def test_a_text_is_no_id_and_a_table_that_is_not_there_is_left_so(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="deleted by ids"):
        lake.delete("interactions", "prompt_text", ["what they wrote"])
    with pytest.raises(ValueError, match="deleted by ids"):
        lake.delete("interactions", "nowhere", ["id"])
    empty = Lake(str(tmp_path / "empty"))
    assert erasure.erase(empty, ["a"], ["b"]) == {"interactions": 0, "scores": 0, "feedback": 0}
    assert erasure.purge(empty, alone=True) == {}
    assert not (tmp_path / "empty").exists()
