"""The ledger by hour: who cannot be asked is None in every hour, and an id without an hour counts in none."""

from watchkeeper.telemetry.hours import by_hour


def test_counts_stand_in_the_hour_of_acceptance() -> None:
    sides = {
        "answered": {"a"},
        "spooled": {"a", "b", "stranger"},
        "mlflow": None,
        "lake": {"b"},
        "scored": None,
        "dead_lettered": {"b"},
        "sampled_out": set[str](),
        "erased": {"a"},
    }
    first, second = by_hour({"a": 0, "b": 497_222}, sides)
    assert (first.hour, second.hour) == ("1970-01-01T00:00Z", "2026-09-21T14:00Z")
    assert (first.accepted, first.answered, first.spooled, first.mlflow, first.lake, first.erased) == (1, 1, 1, None, 0, 1)
    assert (second.spooled, second.lake, second.dead_lettered, second.scored) == (1, 1, 1, None)
    assert by_hour({}, sides) == []
