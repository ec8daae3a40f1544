"""Who is asked: by weight where all do equally well, by load and latency where not, home where there is a conversation."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.serving.balancing import Ask, Balancer
from watchkeeper.settings import Balancing, Upstream


def upstream(name: str, weight: float = 1.0, fallback: int = 0) -> Upstream:
    return Upstream(name=name, base_url="http://127.0.0.1:1/v1", model="m", weight=weight, fallback=fallback)


class Setting:
    def __init__(self, *upstreams: Upstream, seed: int = 1) -> None:
        self.now = 1_000.0
        self.all = upstreams
        self.balancer = Balancer(upstreams, Balancing(), clock=lambda: self.now, rng=random.Random(seed))

    def load(self, name: str, outstanding: float = 0.0, latency: float | None = None) -> None:
        load = self.balancer.loads[name]
        load.outstanding = outstanding
        if latency is not None:
            load.latency[False].observe(latency, self.now)

    def shut(self, name: str) -> None:
        breaker = self.balancer.loads[name].breaker
        for _ in range(3):
            breaker.failed(breaker.begin())

    def firsts(self, times: int = 2_000, ask: Ask | None = None) -> Counter[str]:
        return Counter(self.balancer.rank(self.all, ask or Ask()).order[0].name for _ in range(times))


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.integers(0, 100))
@settings(max_examples=15)
def test_where_all_do_equally_well_shares_converge_to_the_weights(weights: list[float], seed: int) -> None:
    setting = Setting(*(upstream(str(at), weight) for at, weight in enumerate(weights)), seed=seed)
    for at in range(len(weights)):
        setting.load(str(at), latency=0.2)
    found = setting.firsts(3_000)
    for at, weight in enumerate(weights):
        assert found[str(at)] / 3_000 == pytest.approx(weight / sum(weights), abs=0.05)


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=4), st.integers(0, 100))
@settings(max_examples=10)
def test_homes_are_shared_by_weight_and_the_same_for_every_worker(weights: list[float], seed: int) -> None:
    upstreams = [upstream(str(at), weight) for at, weight in enumerate(weights)]
    workers = [Setting(*upstreams, seed=seed), Setting(*reversed(upstreams), seed=seed + 1)]
    homes = [
        [w.balancer.rank(w.all, Ask(key=f"{seed} {n}", known=0.9)).order[0].name for n in range(1_500)] for w in workers
    ]
    assert homes[0] == homes[1]
    found = Counter(homes[0])
    for at, weight in enumerate(weights):
        assert found[str(at)] / 1_500 == pytest.approx(weight / sum(weights), abs=0.06)


def test_an_upstream_that_goes_moves_only_its_own_conversations() -> None:
    three = Setting(upstream("a"), upstream("b"), upstream("c"))
    two = Setting(upstream("a"), upstream("b"))
    for number in range(500):
        ask = Ask(key=str(number), known=0.9)
        before, after = (s.balancer.rank(s.all, ask).order[0].name for s in (three, two))
        assert before in (after, "c")


def test_of_two_the_one_that_would_cost_less_is_asked() -> None:
    setting = Setting(upstream("slow"), upstream("fast"))
    setting.load("slow", latency=0.3)
    setting.load("fast", latency=0.1)
    assert setting.firsts(200) == {"fast": 200}
    setting.load("fast", outstanding=5_000.0)
    assert setting.firsts(200) == {"slow": 200}


def test_more_may_be_outstanding_at_a_heavier_one() -> None:
    setting = Setting(upstream("heavy", 3), upstream("light", 1))
    setting.load("heavy", outstanding=3_000, latency=0.1)
    setting.load("light", outstanding=1_000, latency=0.1)
    assert setting.firsts(4_000)["heavy"] / 4_000 == pytest.approx(0.75, abs=0.03)
    setting.load("light", outstanding=2_000)
    assert setting.firsts(200)["heavy"] == 200


def test_a_slow_one_is_tried_again_after_a_while() -> None:
    setting = Setting(upstream("slow"), upstream("fast"))
    setting.load("slow", latency=1.0)
    setting.load("fast", latency=0.1)
    assert "slow" not in setting.firsts(100)
    setting.now += 60
    assert setting.firsts(200)["slow"] > 20


def test_what_is_slow_shows_before_it_has_answered() -> None:
    setting = Setting(upstream("hangs"), upstream("fast"))
    setting.load("fast", latency=0.1)
    setting.balancer.loads["hangs"].waiting[False][1] = setting.now
    assert "hangs" in setting.firsts(100)
    setting.now += 2.0
    assert setting.firsts(100) == {"fast": 100}


def test_an_unknown_one_is_taken_for_the_best() -> None:
    setting = Setting(upstream("known"), upstream("new"))
    setting.load("known", latency=5.0)
    found = setting.firsts(1_000)
    assert 400 < found["new"] < 600


def test_affinity_outweighs_some_load_but_not_any() -> None:
    setting = Setting(upstream("a"), upstream("b"))
    for name in "ab":
        setting.load(name, latency=0.1)
    key = next(str(n) for n in range(100) if setting.balancer.rank(setting.all, Ask(key=str(n))).order[0].name == "a")
    setting.load("a", outstanding=80.0)
    setting.load("b", outstanding=0.0)
    busy = {known: setting.firsts(50, Ask(100.0, key=key, known=known)) for known in (0.0, 0.9)}
    assert busy[0.0] == {"b": 50}
    assert busy[0.9] == {"a": 50}
    setting.load("a", outstanding=500.0)
    assert setting.firsts(50, Ask(100.0, key=key, known=0.9)) == {"b": 50}


def test_a_fallback_is_asked_only_when_those_before_it_cannot() -> None:
    setting = Setting(upstream("a"), upstream("b"), upstream("spare", fallback=1), upstream("last", fallback=2))
    setting.load("a", outstanding=1e9, latency=100.0)
    setting.load("b", outstanding=1e9, latency=100.0)
    orders = [[one.name for one in setting.balancer.rank(setting.all, Ask()).order] for _ in range(100)]
    assert all(order[2:] == ["spare", "last"] for order in orders)
    setting.shut("a")
    setting.shut("b")
    order = [one.name for one in setting.balancer.rank(setting.all, Ask()).order]
    assert order[:2] == ["spare", "last"]


@given(st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd"), min_size=1), st.booleans())
def test_whatever_is_shut_the_last_one_is_never_left_out(shut: set[str], among: set[str], keyed: bool) -> None:
    setting = Setting(upstream("a"), upstream("b", 2), upstream("c", fallback=1), upstream("d", fallback=2))
    for name in sorted(shut):
        setting.shut(name)
    asked = [one for one in setting.all if one.name in among]
    order = [one.name for one in setting.balancer.rank(asked, Ask(key="k" if keyed else None)).order]
    assert sorted(order) == sorted(among)
    states = [name in shut for name in order]
    assert states == sorted(states), "those that may be asked come first"
