"""What a request may read: the bases of its tenant and its route, and not a trace of any other."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from watchkeeper.serving.base import Base
from watchkeeper.serving.knowledge import Knowledge

TENANTS = ("acme", "bolt", "crow")
ROUTES = ("default", "support")


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """All texts mean the same: whatever keeps them apart is not the encoder."""
    return np.full((len(texts), 4), 0.5, dtype=np.float32)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Base]]:
    made: list[Base] = []

    def base(name: str, text: str, *, tenants: tuple[str, ...] = (), routes: tuple[str, ...] = ()) -> Base:
        folder = tmp_path / f"{len(made)}-{name or 'shared'}"
        folder.mkdir()
        (folder / "rules.md").write_text(text, encoding="utf-8")
        one = Base([folder], tmp_path / f"{len(made)}-cache", embed, "toy", name=name, tenants=tenants, routes=routes)
        made.append(one)
        assert one.refresh()
        return one

    yield base
    for one in made:
        one.close()


def found(knowledge: Knowledge, tenant: str, route: str = "default", query: str = "How many days of leave?") -> list[str]:
    reading = knowledge.reading(tenant, route)
    vector = np.full(4, 0.5, dtype=np.float32)
    return [source.id for source in reading.search(query, vector, 10, 0.0).sources]


def test_a_request_reads_the_base_of_all_and_its_tenants_own(make: Callable[..., Base]) -> None:
    knowledge = Knowledge(
        [
            make("", "# Leave\n\nLeave is 25 days by law."),
            make("acme", "# Leave\n\nLeave at Acme is 30 days.", tenants=("acme",)),
            make("bolt", "# Leave\n\nLeave at Bolt is 28 days.", tenants=("bolt",)),
        ]
    )
    assert set(found(knowledge, "acme")) == {"rules.md#1", "acme/rules.md#1"}
    assert set(found(knowledge, "bolt")) == {"rules.md#1", "bolt/rules.md#1"}
    assert found(knowledge, "someone") == ["rules.md#1"]


def test_a_base_of_a_route_is_for_that_route(make: Callable[..., Base]) -> None:
    knowledge = Knowledge([make("help", "Leave is 25 days.", tenants=("acme", "bolt"), routes=("support",))])
    assert found(knowledge, "acme", "support") == ["help/rules.md#1"]
    assert found(knowledge, "acme", "default") == []
    assert found(knowledge, "crow", "support") == []
    assert not knowledge.reading("acme", "default")
    assert knowledge.reading("acme", "default").version == ""


def test_names_of_others_are_not_linked(make: Callable[..., Base]) -> None:
    knowledge = Knowledge([make("acme", "# Project Nightjar\n\nProject Nightjar is secret.", tenants=("acme",))])
    assert knowledge.reading("acme", "default").link("What is project nightjar?") == ("Project Nightjar",)
    assert knowledge.reading("bolt", "default").link("What is project nightjar?") == ()


def test_another_tenants_documents_change_no_score(make: Callable[..., Base]) -> None:
    """Else one could tell by scores which words stand in documents that one may not read."""
    mine = make("acme", "Leave is 25 days.\n\nNightjar flies at dusk.", tenants=("acme",))
    alone = Knowledge([mine]).reading("acme", "default").search("nightjar leave", None, 5, 0.0)
    other = make("bolt", "Nightjar. " * 50, tenants=("bolt",))
    assert Knowledge([mine, other]).reading("acme", "default").search("nightjar leave", None, 5, 0.0) == alone


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_passage_leaks(make: Callable[..., Base], data: st.DataObject) -> None:
    bases = []
    for number in range(data.draw(st.integers(1, 4))):
        name = f"base{number}"
        tenants = tuple(data.draw(st.sets(st.sampled_from(TENANTS))))
        routes = tuple(data.draw(st.sets(st.sampled_from(ROUTES))))
        bases.append(
            (name, tenants, routes, make(name, f"Leave in {name} is {number} days.", tenants=tenants, routes=routes))
        )
    knowledge = Knowledge([base for _, _, _, base in bases])
    for tenant in (*TENANTS, "stranger"):
        for route in ROUTES:
            allowed = {
                f"{name}/rules.md#1"
                for name, tenants, routes, _ in bases
                if (not tenants or tenant in tenants) and (not routes or route in routes)
            }
            assert set(found(knowledge, tenant, route)) == allowed


def test_the_same_text_in_two_bases_is_one_passage(make: Callable[..., Base]) -> None:
    knowledge = Knowledge([make("", "Leave is 25 days."), make("acme", "Leave is 25 days.")])
    assert len(found(knowledge, "acme")) == 1


def test_the_version_changes_with_what_can_be_found_and_with_nothing_else(
    make: Callable[..., Base], tmp_path: Path
) -> None:
    shared, acme, bolt = (
        make("", "Leave is 25 days."),
        make("acme", "A.", tenants=("acme",)),
        make("bolt", "B.", tenants=("bolt",)),
    )
    knowledge = Knowledge([shared, acme, bolt])
    before = {tenant: knowledge.reading(tenant, "default").version for tenant in TENANTS}
    assert len(set(before.values())) == 3
    assert all(len(version) == 16 for version in before.values())
    file = tmp_path / "1-acme" / "rules.md"
    file.write_text("A.", encoding="utf-8")  # written, not changed
    assert acme.refresh()
    assert knowledge.reading("acme", "default").version == before["acme"]
    file.write_text("A, and more.", encoding="utf-8")
    assert acme.refresh()
    after = {tenant: knowledge.reading(tenant, "default").version for tenant in TENANTS}
    assert after["acme"] != before["acme"]
    assert (after["bolt"], after["crow"]) == (before["bolt"], before["crow"])
    file.write_text("A.", encoding="utf-8")
    assert acme.refresh()
    assert knowledge.reading("acme", "default").version == before["acme"]


def test_a_list_of_names_and_vectors_that_come_later_are_another_version(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("Leave is 25 days.", encoding="utf-8")
    here: list[bool] = []

    def later(texts: Sequence[str]) -> NDArray[np.float32]:
        if not here:
            raise ConnectionError
        return embed(texts)

    base = Base([folder], tmp_path / "cache", later, "toy")
    knowledge = Knowledge([base])
    assert not base.refresh()
    keywords = knowledge.reading("x", "default").version
    here.append(True)
    assert base.refresh()
    whole = knowledge.reading("x", "default").version
    (folder / "entities.txt").write_text("Leave Desk", encoding="utf-8")
    assert base.refresh()
    assert len({keywords, whole, knowledge.reading("x", "default").version}) == 3


def test_a_base_that_is_not_there_yet_leaves_the_others_their_answers(make: Callable[..., Base], tmp_path: Path) -> None:
    later = Base([tmp_path / "later"], tmp_path / "later-cache", embed, "toy", name="later")
    later.close()  # never looks
    knowledge = Knowledge([make("", "Leave is 25 days."), later])
    result = knowledge.reading("acme", "default").search("days of leave", np.full(4, 0.5, dtype=np.float32), 5, 0.0)
    assert [source.id for source in result.sources] == ["rules.md#1"]
    assert result.degraded
    assert not knowledge.complete
