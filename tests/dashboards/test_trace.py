"""One trace: all that is known of it, as text; and clear words where nothing is."""

import json
from typing import Any

import msgspec
import pytest

from watchkeeper.record import Message, Stage


def look(reader: Any, request_id: str) -> Any:
    return reader.fire("trace-body.children", trace_id_data=request_id)["response"]["trace-body"]["children"]


def test_a_trace_shows_the_whole_request(house: Any, reader_of: Any, read: Any) -> None:
    record = next(record for record in house.records if record.action == "flag" and record.output_text)
    words = read(look(reader_of(house), record.request_id))
    assert record.request_id in words
    for expected in (
        "flag",
        record.prompt_text,
        record.output_text,
        "head:injection",
        "Returns",
        "returns.md#2",
        record.release,
    ):
        assert expected in words, expected
    assert {"Admit", "Input guards", "Generate", "Postprocess"} <= set(words)
    assert "toxicity 1" in words


def test_the_links_lead_to_mlflow_and_to_the_session(house: Any, reader_of: Any) -> None:
    record = house.records[0]
    page = json.dumps(look(reader_of(house), record.request_id))
    assert f"traceId=tr-{record.request_id}" in page
    assert f"/traces?range=all&session={record.session}" in page


def test_an_id_may_come_as_mlflow_writes_it(house: Any, reader_of: Any, read: Any) -> None:
    record = house.records[0]
    assert record.request_id in read(look(reader_of(house), f"tr-{record.request_id.upper()}"))


def test_the_bars_lie_where_the_stages_ran(house: Any, reader_of: Any) -> None:
    record = next(record for record in house.records if record.output_text)
    page = json.dumps(look(reader_of(house), record.request_id))
    generate = next(stage for stage in record.stages if stage.name == "generate")
    length = max(record.total_ms, *(stage.offset_ms + stage.ms for stage in record.stages))
    assert f'"left": "{generate.offset_ms / length:.3%}", "width": "{generate.ms / length:.3%}"' in page


def test_a_stage_that_failed_is_marked(make_house: Any, reader_of: Any, read: Any, traffic: Any) -> None:
    stages = (Stage("admit", 0.0, 1.0), Stage("embed", 1.0, 2000.0, "degraded"), Stage("generate", 2001.0, 5.0, "error"))
    record = msgspec.structs.replace(
        traffic(1, 5)[0], stages=stages, status=502, error="upstream_unavailable", output_text=""
    )
    words = read(look(reader_of(make_house([record])), record.request_id))
    assert "not as it should be: Embed, Generate" in words
    assert {"degraded", "error"} <= set(words)
    assert "There is no answer: upstream_unavailable." in words


def test_a_request_that_was_turned_away_at_the_door_still_has_a_page(
    make_house: Any, reader_of: Any, read: Any, traffic: Any
) -> None:
    record = msgspec.structs.replace(
        traffic(1, 5)[0], stages=(), verdicts=(), sources=(), prompt=(), prompt_text="", output_text="", status=429,
        error="rate_limited", finish_reason=None, session=None, user=None, language=None, support=None, ttft_ms=None,
    )  # fmt: skip
    words = read(look(reader_of(make_house([record])), record.request_id))
    assert "rejected" in words
    assert "No stage was recorded: the request ended before it was let in." in words
    assert "No guard looked at this request." in words


def test_hostile_text_stays_text_in_every_field(make_house: Any, reader_of: Any, read: Any, traffic: Any) -> None:
    base = traffic(1, 5)[0]
    evil = base.prompt_text
    record = msgspec.structs.replace(
        base, user=evil, session=evil, model=evil, error=evil, output_text=evil, tags={"k": evil},
        prompt=(Message(evil, evil),), finish_reason=evil,
    )  # fmt: skip
    page = look(reader_of(make_house([record])), record.request_id)
    assert sum(evil in words for words in read(page)) >= 7
    assert "dangerously" not in json.dumps(page)
    assert '"type": "Markdown"' not in json.dumps(page)


def test_an_id_that_is_not_in_the_lake_may_still_come(house: Any, reader_of: Any, read: Any) -> None:
    words = " ".join(read(look(reader_of(house), "0" * 32)))
    assert "not in the lake yet" in words
    assert "watchkeeper verify" in words


def test_what_is_no_id_says_so(house: Any, reader_of: Any, read: Any) -> None:
    words = " ".join(read(look(reader_of(house), "<script>")))
    assert "That is no request id" in words
    assert "32 hexadecimal digits" in words


@pytest.mark.parametrize("source", ["otlp", "mlflow"])
def test_a_request_that_others_served_is_not_said_to_have_passed(
    source: str, make_house: Any, reader_of: Any, read: Any, traffic: Any
) -> None:
    theirs = msgspec.structs.replace(traffic(1, 5)[0], source=source, stages=(), verdicts=(), release="", route="help-desk")
    page = look(reader_of(make_house([theirs])), theirs.request_id)
    words = read(page)
    assert {"unknown", "No guard looked at this request.", source, "help-desk"} <= set(words)
    assert "No stage was recorded: none of its spans is one." in words
    assert not {"pass", "Our overhead", "Release"} & set(words)
