"""Which requests the spool has seen, before and after its segments went."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from watchkeeper.feedback import Feedback
from watchkeeper.record import Record
from watchkeeper.telemetry.accounts import Account, account
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.known import known
from watchkeeper.telemetry.segment import segments
from watchkeeper.telemetry.spool import Spool, SpoolFull

pytestmark = pytest.mark.anyio


async def test_what_was_accepted_or_brought_is_known_also_once_it_is_retired(
    tmp_path: Path, make_record: Callable[..., Record], make_feedback: Callable[..., Feedback]
) -> None:
    brought, accepted, never = make_record(), make_record(), uuid.uuid4().hex
    asked = [brought.request_id, accepted.request_id, never]
    assert known(tmp_path, tmp_path / "spool", asked) == set()
    spool = Spool.open(tmp_path / "spool", "w0")
    await spool.bring(brought, 1)
    spool.accept(accepted.request_id, accepted.received_at)
    await spool.append(make_feedback(never))  # anyone may say something of any id
    await spool.close()
    assert known(tmp_path, tmp_path / "spool", asked) == {brought.request_id, accepted.request_id}
    deliveries = Deliveries(tmp_path)
    for segment in segments(tmp_path / "spool").segments:
        deliveries.retire(account(segment), 1)
        segment.remove()
    deliveries.close()
    assert known(tmp_path, tmp_path / "spool", asked) == {brought.request_id, accepted.request_id}


def test_bytes_of_two_neighbours_are_no_id(tmp_path: Path, make_record: Callable[..., Record]) -> None:
    deliveries = Deliveries(tmp_path)
    two = ["a" * 31 + "b", "c" * 31 + "d"]
    kept = Account(segment="u", worker="w", number=1, accepted=two, hours=[1, 1], spooled=two, accepts=(1, 2), rows=(1, 2))
    deliveries.retire(kept, at=1)
    assert deliveries.among_retired(["a" * 31 + "b", "a" * 15 + "b" + "c" * 16]) == {"a" * 31 + "b"}


async def test_what_is_brought_is_whole_or_not_there(tmp_path: Path, make_record: Callable[..., Record]) -> None:
    spool = Spool.open(tmp_path / "spool", "w0")
    record = make_record(source="otlp")
    await spool.bring(record, 1)
    (segment,) = segments(tmp_path / "spool").segments
    assert segment.ids() == ([record.request_id], [(1, record.request_id)])
    await spool.close()
    with pytest.raises(SpoolFull):
        await spool.bring(make_record(), 1)
    (segment,) = segments(tmp_path / "spool").segments
    assert segment.last == 1
