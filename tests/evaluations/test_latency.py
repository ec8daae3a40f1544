"""The latency job over a real lake: exact percentiles of what was served, and objectives that are certainly missed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record, Stage
from watchkeeper.settings import Objectives
from watchkeeper_evaluations.case import Case, Finding
from watchkeeper_evaluations.latency import Latency
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))
OFF = dict.fromkeys(("total_p95_ms", "ttft_p95_ms", "overhead_p95_ms", "errors"), False)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def served(ms: float, **fields: Any) -> Record:
    return msgspec.structs.replace(Record(request_id="", received_at=0, total_ms=ms, overhead_ms=ms / 10), **fields)


def evaluate(lake: Lake, records: list[Record], **objectives: Any) -> Finding:
    numbered = [
        msgspec.structs.replace(
            record, request_id=f"{number:032x}", received_at=microseconds(NOON + timedelta(seconds=number))
        )
        for number, record in enumerate(records)
    ]
    lake.append("interactions", to_arrow(numbered))
    return Latency().judge(Case(lake, WINDOW, None, None, 30, Objectives.model_validate(objectives)), ())


def test_percentiles_are_exact(lake: Lake) -> None:
    times = [float(ms) for ms in np.random.default_rng(1).lognormal(6, 1, 200)]
    found = evaluate(lake, [served(ms) for ms in times])
    for which, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert found.metrics[f"total_ms.{which}"] == pytest.approx(np.quantile(times, q))
    assert found.metrics["overhead_ms.p95"] == pytest.approx(np.quantile(times, 0.95) / 10)
    assert found.metrics["total_ms.n"] == 200
    assert (found.metrics["ttft_ms.n"], "ttft_ms.p50" in found.metrics) == (0, False)
    assert found.verdict == "pass"


def test_each_stage_that_was_not_skipped(lake: Lake) -> None:
    stages = (Stage("embed", 0.0, 8.0), Stage("ground", 8.0, 2.0, "skipped"), Stage("generate", 9.0, 500.0, "error"))
    found = evaluate(lake, [served(100, stages=stages)] * 40)
    assert found.metrics["stage.embed_ms.p95"] == 8.0
    assert found.metrics["stage.generate_ms.p50"] == 500.0
    assert not any(name.startswith("stage.ground") for name in found.metrics)


def test_refused_requests_and_replays_count_nowhere(lake: Lake) -> None:
    refused, replayed = served(1, status=429, error="rate_limited"), served(9e6, source="replay")
    found = evaluate(lake, [served(100)] * 40 + [refused] * 40 + [replayed] * 40)
    assert (found.metrics["total_ms.p50"], found.metrics["total_ms.n"], found.metrics["errors.n"]) == (100, 40, 40)


@pytest.mark.parametrize(("slow", "verdict"), [(0, "pass"), (4, "pass"), (7, "warn"), (30, "fail")])
def test_certainly_too_slow_fails(lake: Lake, slow: int, verdict: str) -> None:
    found = evaluate(lake, [served(100)] * (100 - slow) + [served(900)] * slow, total_p95_ms=500)
    assert found.verdict == verdict
    assert "95% of requests within" in found.reason
    if verdict == "fail":
        assert found.metrics["total_ms.p95.lower"] > 500


def test_streams_are_held_to_their_first_token(lake: Lake) -> None:
    streams = [served(400, stream=True, ttft_ms=float(ms), tpot_ms=5.0) for ms in range(200, 300)]
    found = evaluate(lake, streams, ttft_p95_ms=150, tpot_p95_ms=20)
    assert found.verdict == "fail"
    assert "95% of first tokens within 294 ms" in found.reason
    assert found.params["objectives"]["tpot_p95_ms"] == "at most 20"


def test_failed_requests_are_a_share(lake: Lake) -> None:
    broken = served(50, status=502, error="upstream_unavailable")
    found = evaluate(lake, [served(100)] * 60 + [broken] * 20)
    assert found.verdict == "fail"
    assert "failed requests 25.0%" in found.reason
    assert found.metrics["errors.share"] == 0.25


def test_unknown_without_objectives_or_requests_enough(tmp_path: Path) -> None:
    off = evaluate(Lake(str(tmp_path / "off")), [served(100)] * 40, **OFF)
    assert off.verdict == "unknown"
    assert off.reason.startswith("no objective is set: write one under [objectives], one of total_p95_ms, ttft_p95_ms")
    refused = served(1, status=400, error="invalid_request")
    few = evaluate(Lake(str(tmp_path / "few")), [served(100)] * 20 + [refused] * 20)
    assert (few.verdict, few.metrics["total_ms.n"]) == ("unknown", 20)


def test_the_report_names_the_slowest_by_id(lake: Lake) -> None:
    found = evaluate(lake, [served(float(ms), prompt_text="Jonas Oakfield") for ms in range(100, 150)])
    html, body = found.artifacts["report.html"], found.artifacts["report.json"]
    assert isinstance(html, str)
    assert isinstance(body, dict)
    assert "Oakfield" not in html + str(body)
    assert body["slowest"][0] == {"request_id": f"{49:032x}", "total_ms": 149.0, "overhead_ms": 14.9}
