"""Budgets in one file: several workers take from the same, a killed one loses nothing for the others, a restart changes
nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.budgets import DEAD_S, FILE_NAME, MAGIC, Budgets, BudgetsBroken, Exhausted
from watchkeeper.settings import Tenant


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


def acme(**limits: Any) -> Tenant:
    return Tenant(name="acme", **limits)


def left(budgets: Budgets) -> tuple[float, float, float]:
    ((_, allowance),) = budgets.allowances()
    return allowance.tokens.level, allowance.day.usd, sum(allowance.running)


def test_a_tenant_without_limits_costs_nothing(tmp_path: Path) -> None:
    budgets = Budgets(tmp_path / FILE_NAME, [Tenant(name="free"), acme(max_in_flight=1)], 0)
    before = (tmp_path / FILE_NAME).read_bytes()
    assert budgets.reserve("free", 1e9, 1e9) is None
    assert budgets.reserve("unknown", 1e9, 1e9) is None
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_two_workers_take_from_the_same(tmp_path: Path) -> None:
    clock = Clock()
    tenants = [acme(tokens_per_minute=1_000, usd_per_day=1.0, max_in_flight=3)]
    one, other = (Budgets(tmp_path / FILE_NAME, tenants, number, clock) for number in (0, 1))
    held = one.reserve("acme", 600, 0.5)
    assert held is not None
    with pytest.raises(Exhausted) as caught:
        other.reserve("acme", 600, 0.1)
    assert caught.value.denied.reason == "tokens"
    assert caught.value.standing.tokens_left == 400
    one.settle(held, 100, 0.2)
    assert left(other) == (900, 0.2, 0)


def test_a_restart_forgets_what_was_under_way_and_nothing_else(tmp_path: Path) -> None:
    clock = Clock()
    tenants = [acme(tokens_per_minute=1_000, usd_per_month=10.0, usd_per_day=1.0, max_in_flight=1)]
    first = Budgets(tmp_path / FILE_NAME, tenants, 0, clock)
    first.reserve("acme", 300, 0.25)
    first.sync()
    first.close()
    assert left(Budgets(tmp_path / FILE_NAME, tenants, None, clock)) == (700, 0.25, 1)
    assert left(Budgets(tmp_path / FILE_NAME, tenants, 0, clock)) == (700, 0.25, 0)


def test_what_a_dead_worker_had_under_way_is_forgotten_by_the_others(tmp_path: Path) -> None:
    clock = Clock()
    tenants = [acme(max_in_flight=2)]
    dead, alive = (Budgets(tmp_path / FILE_NAME, tenants, number, clock) for number in (5, 6))
    dead.reserve("acme", 0, 0.0)
    alive.reserve("acme", 0, 0.0)
    for _ in range(int(DEAD_S) + 1):
        with pytest.raises(Exhausted):
            alive.reserve("acme", 0, 0.0)
        clock.now += 1
        alive.beat()
    assert left(alive)[2] == 1
    alive.reserve("acme", 0, 0.0)


def test_other_tenants_and_changed_limits_find_their_place(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / FILE_NAME
    Budgets(file, [acme(tokens_per_minute=1_000, usd_per_day=9.0)], 0, clock).reserve("acme", 100, 1.5)
    tenants = [Tenant(name="beta", tokens_per_minute=50), acme(tokens_per_minute=500, usd_per_day=9.0)]
    budgets = Budgets(file, tenants, 0, clock)
    found = {tenant.name: allowance for tenant, allowance in budgets.allowances()}
    assert (found["beta"].tokens.level, found["acme"].tokens.level, found["acme"].day.usd) == (50, 500, 1.5)


@pytest.mark.parametrize("body", [b"x", b"x" * 5_000, MAGIC.replace(b"1", b"2").ljust(1024, b"\0")])
def test_a_file_of_others_is_one_line_and_is_left_alone(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(body)
    with pytest.raises(BudgetsBroken, match="budgets"):
        Budgets(file, [acme(max_in_flight=1)], 0)
    assert file.read_bytes() == body
    with pytest.raises(BudgetsBroken):
        Budgets(tmp_path / FILE_NAME / "below", [acme(max_in_flight=1)], 0)


@given(st.binary(min_size=200, max_size=200))
def test_whatever_numbers_stand_there_the_limits_hold(tmp_path_factory: pytest.TempPathFactory, rubbish: bytes) -> None:
    file = tmp_path_factory.mktemp("budgets") / FILE_NAME
    tenants = [acme(tokens_per_minute=1_000, usd_per_day=1.0)]
    Budgets(file, tenants, 0).close()
    with file.open("r+b") as out:
        out.seek(1024 + 64)
        out.write(rubbish)
    budgets = Budgets(file, tenants, 0)
    taken = 0
    for _ in range(20):
        try:
            budgets.reserve("acme", 100, 0.0)
            taken += 1
        except Exhausted:
            break
    assert taken <= 10
    ((_, allowance),) = budgets.allowances()
    assert 0 <= allowance.tokens.level <= 1_000
    budgets.close()


SPENDER = """
import sys
from pathlib import Path
from watchkeeper.serving.budgets import Budgets, Exhausted
from watchkeeper.settings import Tenant

file, worker, most = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tenant = Tenant(name="acme", tokens_per_minute=2_000, usd_per_day=1_000.0)
budgets = Budgets(file, [tenant], worker, lambda: 1_790_000_000.0)
for _ in range(most):
    try:
        held = budgets.reserve("acme", 2, 0.02)
    except Exhausted:
        break
    budgets.settle(held, 1, 0.01)
    print("x", end="", flush=True)
"""
"""Takes a token and a cent at a time, and says so."""


def test_processes_that_spend_at_the_same_time_spend_exactly_that(tmp_path: Path, wait_for: Callable[..., None]) -> None:
    file = tmp_path / FILE_NAME
    said = [tmp_path / f"{number}.txt" for number in range(3)]
    processes = []
    for number, out in enumerate(said):
        most = "100000" if number == 2 else "400"
        command = [sys.executable, "-c", SPENDER, str(file), str(number), most]
        with out.open("wb") as stream:
            processes.append(subprocess.Popen(command, stdout=stream))
    wait_for(lambda: said[2].stat().st_size > 50, what="the one that is killed")
    processes[2].kill()
    for process in processes:
        process.wait(60)
    taken = sum(out.stat().st_size for out in said)
    assert taken > 850
    level, usd, _ = left(Budgets(file, [acme(tokens_per_minute=2_000, usd_per_day=1_000.0)], 0, Clock()))
    # The killed one was in the middle of one request at most, which is counted as it was settled, as it was reserved, or
    # not at all.
    assert 2_000 - taken - 2 <= level <= 2_000 - taken
    assert 0.01 * taken - 1e-6 <= usd <= 0.01 * taken + 0.02 + 1e-6
