"""The schedule's status: written whole, read back, and nothing where there is none."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from watchkeeper_evaluations.schedule_status import FILE, JobStatus, ScheduleStatus, read, write
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    window = Window(NOON, NOON + timedelta(hours=1))
    status = ScheduleStatus(NOON, {"drift": JobStatus(NOON, window, "pass", None), "toxicity": JobStatus()}, "no")
    write(tmp_path, status)
    assert read(tmp_path) == status
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_none_or_a_broken_one_is_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / FILE).write_text('{"at": 1}')
    assert read(tmp_path) is None
