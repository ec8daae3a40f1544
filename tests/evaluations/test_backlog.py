"""What is due: a real lake, a spool that is behind, rows that came late."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Origin, Record
from watchkeeper.settings import Settings
from watchkeeper.telemetry.spool import Spool
from watchkeeper_evaluations import backlog
from watchkeeper_evaluations.timetable import Timetable
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY = Timetable("toxicity", 3600)
FIRST = HOURLY.number(microseconds(NOON))
JUDGES = "toxicity@1 toxicity@judge-1"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def fill(lake: Lake, *hours: float, source: Origin = "gateway") -> None:
    at = [microseconds(NOON + hour * HOUR) for hour in hours]
    lake.append("interactions", to_arrow([Record(request_id=f"{t:032x}", received_at=t, source=source) for t in at]))


def due(lake: Lake, until: datetime) -> range:
    return backlog.due(lake, HOURLY, JUDGES, microseconds(until))


def test_an_empty_lake_owes_nothing(lake: Lake) -> None:
    assert not due(lake, NOON)
    fill(lake, 0.5, source="replay")
    assert not due(lake, NOON + 5 * HOUR)


def test_it_starts_with_the_oldest_request_and_ends_with_what_is_over(lake: Lake) -> None:
    fill(lake, 2.5, 0.5)
    fill(lake, -5, source="replay")
    assert due(lake, NOON + 3 * HOUR) == range(FIRST, FIRST + 3)
    assert due(lake, NOON + 3 * HOUR - timedelta(seconds=1)) == range(FIRST, FIRST + 2)
    assert backlog.with_requests(lake, HOURLY, due(lake, NOON + 3 * HOUR)) == [FIRST, FIRST + 2]


def test_what_was_judged_is_not_due_but_for_another_judge(lake: Lake) -> None:
    fill(lake, 0.5)
    lake.append("evaluations", lake.query("SELECT * FROM evaluations"), app_id=HOURLY.app_id(JUDGES), version=FIRST + 1)
    assert due(lake, NOON + 3 * HOUR) == range(FIRST + 2, FIRST + 3)
    other = backlog.due(lake, HOURLY, "toxicity@1 toxicity@judge-2", microseconds(NOON + 3 * HOUR))
    assert other == range(FIRST, FIRST + 3)


def test_a_request_that_is_not_in_the_lake_yet_holds_windows_back(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    assert backlog.reach(settings, NOON).over == backlog.reach(settings, NOON).arrived == microseconds(NOON) - 5_000_000
    at = microseconds(NOON - HOUR)

    async def serve() -> None:
        spool = Spool.open(settings.spool_folder, "w0")
        spool.accept("a" * 32, at)
        await spool.append(Record(request_id="a" * 32, received_at=at))
        await spool.close()

    asyncio.run(serve())
    reach = backlog.reach(settings, NOON)
    assert reach.arrived == at < reach.over


def test_rows_that_came_late_are_found_and_only_then(lake: Lake) -> None:
    window = Window(NOON, NOON + HOUR)
    assert not backlog.has_unscored(lake, JUDGES, window)
    fill(lake, 0.5)
    assert backlog.has_unscored(lake, JUDGES, window)
    assert not backlog.has_unscored(lake, JUDGES, window.previous)
    assert not backlog.has_unscored(lake, "drift@1", window)


def test_late_rows_are_looked_for_a_week_back() -> None:
    until = microseconds(NOON - HOUR)
    assert backlog.late_window(NOON, 0, until) == Window(NOON - timedelta(days=7), NOON - HOUR)
    assert backlog.late_window(NOON, microseconds(NOON - 3 * HOUR), until) == Window(NOON - 3 * HOUR, NOON - HOUR)
    assert backlog.late_window(NOON, until, until) is None
    assert backlog.earliest([5, 3, 9], before=4) == 3
    assert backlog.earliest([5, 9], before=4) is None
    assert backlog.earliest([], before=4) is None
