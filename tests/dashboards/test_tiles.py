"""Key figures: what changed, and whether that is good."""

import math
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from watchkeeper.lake.rollup import Rollups
from watchkeeper_dashboards.tiles import describe_change, key_figures


@pytest.mark.parametrize(
    ("value", "before", "is_share", "worse_up", "expected"),
    [
        (131.9, 100, False, None, ("▲ 31.9% vs prior", "neutral")),
        (105.4, 100, False, True, ("▲ 5.4% vs prior", "bad")),
        (90, 100, False, True, ("▼ 10.0% vs prior", "good")),
        (0.12, 0.10, True, True, ("▲ 2.0 pt vs prior", "bad")),
        (0.0, 0.02, True, True, ("▼ 2.0 pt vs prior", "good")),
        (100.2, 100, False, True, ("≈ same as prior", "neutral")),
        (5, math.nan, False, True, ("no prior window", "neutral")),
        (5, 0, False, True, ("no prior window", "neutral")),
        (math.nan, 3, False, True, ("no prior window", "neutral")),
    ],
)
def test_a_change_says_its_size_and_whether_it_is_good(
    value: float, before: float, is_share: bool, worse_up: bool | None, expected: tuple[str, str]
) -> None:
    assert describe_change(value, before, is_share, worse_up) == expected


def words(house: Any, hours: float) -> dict[str, tuple[str, str]]:
    now = house.sources().now()
    current = Rollups.read(house.lake, now - timedelta(hours=hours), now)
    tiles = key_figures(current, None)
    return {tile.children[0].children: (tile.children[1].children, tile.children[2].children) for tile in tiles}


def test_the_tiles_count_what_was_served(house: Any) -> None:
    shown = words(house, 48)
    records = house.records
    assert shown["Requests"][0] == f"{len(records):,}"
    failed = sum(record.status == 502 for record in records) / len(records)
    assert shown["Error rate"][0] == (f"{failed:.2%}" if failed < 0.01 else f"{failed:.1%}")
    stopped = sum(record.action != "pass" for record in records) / len(records)
    assert shown["Not passed by safety"][0] == f"{stopped:.1%}"
    assert "Cost / 1k requests" in shown


def test_without_a_price_tokens_take_the_place_of_cost(make_house: Any, traffic: Any) -> None:
    free = [msgspec.structs.replace(record, cost_usd=0.0) for record in traffic(50, 30)]
    shown = words(make_house(free), 1)
    assert "Cost / 1k requests" not in shown
    assert "Tokens" in shown
