"""Parts wait for one another: durable, each once, whatever order they come in and whatever dies."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.telemetry.spans import Part
from watchkeeper.telemetry.spans.staging import FILE_NAME, KEPT_S, MOST_SPANS, SECOND, Staging, StagingUnavailable

TRACE, OTHER = "a" * 32, "c" * 32
AT = 1_790_000_000 * SECOND


def opened(data: Path, **fields: Any) -> Staging:
    return Staging(data, **{"settle_s": 5, "idle_s": 300, "most_bytes": 1 << 24} | fields)


def part(number: int, **fields: Any) -> Part:
    return Part(**{"span_id": f"{number:016x}", "parent_id": "f" * 16} | fields)


def root(number: int = 1) -> Part:
    return part(number, parent_id="", place="root")


def ready(staging: Staging, at: int) -> list[str]:
    return [one.trace_id for one in staging.take(at)]


def test_a_trace_is_ready_when_nothing_came_for_a_moment_after_its_root(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    staging.add({TRACE: [part(2)]}, AT)
    assert ready(staging, AT + 299 * SECOND) == []
    staging.add({TRACE: [root()]}, AT + SECOND)
    staging.add({TRACE: [part(3)]}, AT + 4 * SECOND)
    assert ready(staging, AT + 8 * SECOND) == []
    (found,) = staging.take(AT + 9 * SECOND)
    assert [one.span_id for one in found.parts] == [f"{number:016x}" for number in (1, 2, 3)]
    assert not found.before


def test_a_trace_whose_root_never_comes_is_ready_when_nothing_came_for_long(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    staging.add({TRACE: [part(2)], OTHER: [part(2, place="entry")]}, AT)
    assert ready(staging, AT + 29 * SECOND) == []
    assert ready(staging, AT + 30 * SECOND) == [OTHER]
    assert ready(staging, AT + 300 * SECOND) == [OTHER, TRACE]


def test_what_is_sent_again_is_kept_once_before_and_after_it_was_recorded(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    sent = {TRACE: [root(), part(2)]}
    assert staging.add(sent, AT) == (2, 0, 0, 0)
    assert staging.add(sent, AT) == (0, 2, 0, 0)
    staging.take(AT + 5 * SECOND)
    assert staging.add(sent, AT) == (0, 2, 0, 0)
    assert staging.add({TRACE: [part(3)]}, AT) == (0, 0, 1, 0)
    staging.finish([TRACE], AT)
    assert staging.add(sent, AT) == (0, 2, 0, 0)
    assert staging.add({TRACE: [part(3)]}, AT) == (0, 0, 1, 0)
    assert staging.waiting() == 0


def test_sending_again_does_not_make_a_trace_wait_longer(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    staging.add({TRACE: [root()]}, AT)
    staging.add({TRACE: [root()]}, AT + 4 * SECOND)
    assert ready(staging, AT + 5 * SECOND) == [TRACE]


def test_what_was_taken_and_not_finished_comes_again_and_says_so(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    staging.add({TRACE: [root()]}, AT)
    staging.take(AT + 5 * SECOND)
    staging.close()
    (again,) = opened(tmp_path).take(AT)
    assert (again.trace_id, again.before, len(again.parts)) == (TRACE, True, 1)


def test_what_add_returned_for_survives_kill_9(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from watchkeeper.telemetry.spans import Part\n"
        "from watchkeeper.telemetry.spans.staging import Staging\n"
        "staging = Staging(Path(sys.argv[1]), settle_s=5, idle_s=300, most_bytes=1 << 24)\n"
        f"staging.add({{'{TRACE}': [Part(span_id='{1:016x}', place='root')]}}, {AT})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert ready(opened(tmp_path), AT + 5 * SECOND) == [TRACE]


def test_it_is_bounded(tmp_path: Path) -> None:
    staging = opened(tmp_path, most_bytes=200_000)
    staging.add({TRACE: [part(number, asked="x" * 10_000) for number in range(1, 30)]}, AT)
    with pytest.raises(StagingUnavailable, match="wait to be recorded"):
        staging.add({OTHER: [part(1)]}, AT)
    staging.take(AT + 300 * SECOND)
    staging.finish([TRACE], AT)
    assert staging.add({OTHER: [part(1)]}, AT).kept == 1


def test_a_trace_has_an_end(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    many = [part(number) for number in range(1, MOST_SPANS + 11)]
    assert staging.add({TRACE: many}, AT) == (MOST_SPANS, 0, 0, 10)


def test_ids_are_kept_for_a_day(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    staging.add({TRACE: [root()]}, AT)
    staging.finish([TRACE], AT)
    staging.finish([], AT + (KEPT_S + 1) * SECOND)
    assert staging.add({TRACE: [root()]}, AT).kept == 1


def everything(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(data.glob(f"{FILE_NAME}*")))


def test_what_is_erased_leaves_no_byte_and_does_not_come_back(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    staging.add({TRACE: [part(1, asked="planted words", user="ada"), part(2)], OTHER: [part(1, asked="others words")]}, AT)
    assert b"planted words" in everything(tmp_path)
    assert staging.erase([], AT, user="ada") == 1
    assert b"planted words" not in everything(tmp_path)
    assert staging.erase([TRACE], AT, user="ada") == 0
    assert staging.add({TRACE: [part(1, asked="planted words", user="ada")]}, AT) == (0, 0, 1, 0)
    assert staging.erase([OTHER], AT) == 1
    assert b"others words" not in everything(tmp_path)


def test_the_watermark_waits_for_whole_traces_only(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    assert staging.oldest_whole() is None
    assert not staging.exists
    staging.add({OTHER: [part(1)]}, AT)
    assert staging.oldest_whole() is None
    staging.add({TRACE: [part(2)]}, AT + 1)
    staging.add({TRACE: [root()]}, AT + 2)
    assert staging.oldest_whole() == AT + 1


def test_a_lone_surrogate_costs_no_span(tmp_path: Path) -> None:
    staging = opened(tmp_path)
    staging.add({TRACE: [part(1, asked="half \ud83d of one", place="root")]}, AT)
    (found,) = staging.take(AT + 5 * SECOND)
    assert found.parts[0].asked == "half \ufffd of one"


def test_a_file_that_is_torn_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(StagingUnavailable, match=rf"{FILE_NAME}: file is not a database"):
        opened(tmp_path).add({TRACE: [root()]}, AT)
