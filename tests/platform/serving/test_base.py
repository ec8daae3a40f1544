"""One knowledge base as a gateway uses it: it answers at once, and follows its files."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from watchkeeper.serving import base as module
from watchkeeper.serving.base import CHECK_S, Base, Problem
from watchkeeper.serving.documents import Reader
from watchkeeper.serving.index import Found
from watchkeeper.serving.knowledge import Knowledge
from watchkeeper.serving.passages import Passage, cut


class Encoder:
    """Every text has a vector of its own, but the same words the same. Away until `here`."""

    def __init__(self, here: bool = True) -> None:
        self.here = threading.Event()
        if here:
            self.here.set()
        self.asked = 0

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not self.here.is_set():
            raise ConnectionError("away")
        self.asked += len(texts)
        rows = np.zeros((len(texts), 384), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[sum(map(ord, word)) % 384] += 1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(folder: Path, encoder: Encoder | None = None, clock: Clock | None = None, *more: Path) -> Base:
    return Base(
        [folder, *more],
        folder.parent / "data",
        encoder or Encoder(),
        "toy",
        clock=clock or Clock(),
        retry_s=(0.001, 0.01),
    )


def search(base: Base, query: str, embedding: NDArray[np.float32] | None, k: int = 3) -> Found:
    return Knowledge([base]).reading("default", "default").search(query, embedding, k, 0.3)


def link(base: Base, text: str) -> tuple[str, ...]:
    return Knowledge([base]).reading("default", "default").link(text)


def ids(found: Found) -> list[str]:
    return [source.id for source in found.sources]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "docs"
    (base / "inner").mkdir(parents=True)
    (base / "leave.md").write_text("# Leave\n\nAnnual leave is 28 days.", encoding="utf-8")
    (base / "inner" / "dogs.txt").write_text("Dogs are welcome on Fridays.", encoding="utf-8")
    return base


def test_a_base_is_read_with_its_inner_folders(folder: Path) -> None:
    base = make(folder)
    assert base.refresh()
    assert base.size == 2
    assert ids(search(base, "annual leave", None)) == ["leave.md#1"]
    assert ids(search(base, "dogs on Fridays", None)) == ["inner/dogs.txt#1"]
    assert base.problems == ()


def test_before_the_first_index_a_search_gives_nothing_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make(folder)
    go_on = threading.Event()

    read = Reader.read

    def slow(self: Reader, path: Path) -> str:
        assert go_on.wait(10)
        return read(self, path)

    monkeypatch.setattr(Reader, "read", slow)
    assert search(base, "annual leave", None) == Found((), degraded=True)
    go_on.set()
    assert base.wait(10)
    assert ids(search(base, "annual leave", None)) == ["leave.md#1"]


def test_search_is_hybrid_with_an_embedding(folder: Path) -> None:
    encoder = Encoder()
    base = make(folder, encoder)
    base.refresh()
    found = search(base, "annual leave days", encoder(["annual leave is days"])[0])
    assert ids(found)[0] == "leave.md#1"
    assert not found.degraded


def test_keywords_serve_until_the_encoder_comes(folder: Path) -> None:
    encoder = Encoder(here=False)
    base = make(folder, encoder)
    assert not base.refresh()
    vector = np.ones(384, dtype=np.float32) / np.float32(384**0.5)
    assert search(base, "annual leave", vector).degraded
    encoder.here.set()
    assert base.wait(10), "the thread that search started goes on until the vectors are there"
    assert not search(base, "annual leave", vector).degraded


def test_files_are_embedded_once(folder: Path) -> None:
    encoder = Encoder()
    make(folder, encoder).refresh()
    asked = encoder.asked
    again = make(folder, encoder)
    again.refresh()
    assert encoder.asked == asked
    (folder / "new.md").write_text("Coffee is free.", encoding="utf-8")
    again.refresh()
    assert encoder.asked == asked + 1


def test_a_change_is_found_at_the_next_look_and_not_before(folder: Path) -> None:
    clock = Clock()
    base = make(folder, clock=clock)
    base.look()
    assert base.wait(10)
    (folder / "coffee.md").write_text("Coffee is free for everyone.", encoding="utf-8")
    clock.now += CHECK_S / 2
    search(base, "coffee", None)
    assert base.wait(10)
    assert base.size == 2
    clock.now += CHECK_S
    search(base, "coffee", None)
    assert base.wait(10)
    assert ids(search(base, "coffee", None)) == ["coffee.md#1"]


def test_an_edited_and_a_removed_file_are_followed(folder: Path) -> None:
    base = make(folder)
    base.refresh()
    (folder / "leave.md").write_text("# Leave\n\nVacation lasts forever.", encoding="utf-8")
    (folder / "inner" / "dogs.txt").unlink()
    base.refresh()
    assert base.size == 1
    assert "forever" in search(base, "vacation", None).sources[0].text


def test_while_files_change_the_search_stays_hybrid(folder: Path) -> None:
    encoder = Encoder()
    base = make(folder, encoder)
    base.refresh()
    seen: list[bool] = []
    vector = encoder(["coffee"])[0]

    def spy(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.append(search(base, "leave", vector).degraded)
        return encoder(texts)

    base._embed = spy
    (folder / "coffee.md").write_text("Coffee is free.", encoding="utf-8")
    base.refresh()
    assert seen == [False]
    assert base.size == 3


def test_bad_files_are_left_out_and_named(folder: Path) -> None:
    (folder / "latin.md").write_bytes(b"caf\xe9")
    (folder / "binary.txt").write_bytes(b"\0\1\2")
    (folder / "huge.md").write_bytes(b"x" * 2_000_001)
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("secret", encoding="utf-8")
    (folder / "nowhere.md").symlink_to(folder / "gone.md")
    base = make(folder)
    base.refresh()
    assert base.size == 2
    assert base.problems == (
        Problem("binary.txt", "not a text file"),
        Problem("huge.md", "larger than 2 MB"),
        Problem("latin.md", "not UTF-8"),
    )
    (folder / "latin.md").write_text("café", encoding="utf-8")
    base.refresh()
    assert [problem.path for problem in base.problems] == ["binary.txt", "huge.md"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    base = make(tmp_path / "none")
    base.refresh()
    assert base.size == 0
    assert base.problems == (Problem(str(tmp_path / "none"), "no such folder"),)
    assert search(base, "anything", None) == Found((), degraded=False)


def test_a_folder_that_goes_away_does_not_empty_the_base(folder: Path) -> None:
    base = make(folder)
    base.refresh()
    folder.rename(folder.with_name("elsewhere"))
    base.refresh()
    assert ids(search(base, "annual leave", None)) == ["leave.md#1"]
    assert base.problems == (Problem(str(folder), "no such folder"),)


def test_a_failing_rebuild_keeps_the_last_good_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = make(folder)
    base.refresh()
    (folder / "coffee.md").write_text("Coffee is free.", encoding="utf-8")

    def fail(*_: object, **named: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(module, "Index", fail)
        assert not base.refresh()
        assert base.problems == (Problem("", "could not be indexed again: MemoryError"),)
        assert "could not be indexed" in caplog.text
        assert base.size == 2
    assert ids(search(base, "annual leave", None)) == ["leave.md#1"]
    assert base.refresh()
    assert base.size == 3
    assert not base.problems


def test_names_of_several_folders_do_not_collide(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "more"
    other.mkdir()
    (other / "leave.md").write_text("Other leave rules of the branch office.", encoding="utf-8")
    base = make(folder, None, None, other)
    base.refresh()
    assert ids(search(base, "branch office", None, 1)) == ["more/leave.md#1"]


def test_the_list_of_names_is_no_document_and_the_catalogue_follows(folder: Path) -> None:
    (folder / "entities.txt").write_text("Employee Assistance Programme | EAP\n", encoding="utf-8")
    base = make(folder)
    base.refresh()
    assert base.size == 2
    assert link(base, "how do I reach the EAP") == ("Employee Assistance Programme",)
    (folder / "entities.txt").unlink()
    base.refresh()
    assert link(base, "how do I reach the EAP") == ()


def test_after_close_nothing_is_looked_for(folder: Path) -> None:
    clock = Clock()
    base = make(folder, clock=clock)
    base.refresh()
    base.close()
    (folder / "coffee.md").write_text("Coffee is free.", encoding="utf-8")
    clock.now += 100
    search(base, "coffee", None)
    assert base.wait(10)
    assert base.size == 2


def test_the_sample_handbook_is_read_without_problems(tmp_path: Path) -> None:
    base = Base([Path(__file__).parent / "handbook"], tmp_path, Encoder(), "toy", clock=Clock())
    base.refresh()
    assert base.size > 40
    assert base.problems == ()
    assert base.indexed is not None
    assert {"Maria Lindqvist", "Travel Desk", "drain_seconds"} <= set(base.indexed.catalogue.names)


def test_of_many_files_only_the_changed_one_is_read_cut_and_embedded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number}.md").write_text(f"# Rule {number}\n\nThe rule number {number} is kept.", encoding="utf-8")
    encoder = Encoder()
    base = make(folder, encoder)
    assert base.refresh()
    seen: list[str] = []
    read = Reader.read

    def reading(self: Reader, path: Path) -> str:
        seen.append(f"read {path.name}")
        return read(self, path)

    def cutting(name: str, text: str) -> list[Passage]:
        seen.append(f"cut {name}")
        return cut(name, text)

    monkeypatch.setattr(Reader, "read", reading)
    monkeypatch.setattr(module, "cut", cutting)
    asked = encoder.asked
    (folder / "77.md").write_text("# Rule 77\n\nAnother one altogether.", encoding="utf-8")
    assert base.refresh()
    assert seen == ["read 77.md", "cut 77.md"]
    assert encoder.asked == asked + 1
    assert ids(search(base, "another one altogether", None, 1)) == ["77.md#1"]


def test_pages_and_pdf_files_are_found_and_hostile_ones_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "parking.html").write_text("<h1>Parking</h1><p>There are 40 parking places.</p>", encoding="utf-8")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing else")
    (folder / "empty.html").write_text("<script>alert(1)</script>", encoding="utf-8")
    base = make(folder)
    assert base.refresh()
    assert ids(search(base, "parking places", None, 1)) == ["parking.html#1"]
    assert {problem.path for problem in base.problems} == {"broken.pdf", "empty.html"}
    assert "broken.pdf is damaged" in caplog.text
    caplog.clear()
    assert base.refresh()
    assert caplog.text == "", "what is known is not told again"
    base.close()


def test_a_reader_that_does_not_start_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "parking.html").write_text("<h1>Parking</h1><p>There are 40 parking places.</p>", encoding="utf-8")
    base = make(folder)
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", str(folder / "none"))
        assert not base.refresh()
        assert base.problems == (Problem("", "could not be indexed again: ReaderBroken"),)
    assert base.refresh()
    assert base.size == 3
    base.close()


def test_vectors_that_cannot_be_kept_are_named_and_used(folder: Path) -> None:
    (folder.parent / "data").write_text("a file where the folder should be")
    encoder = Encoder()
    base = make(folder, encoder)
    assert base.refresh()
    assert [problem.path for problem in base.problems] == [""]
    assert "not kept for the next start" in base.problems[0].reason
    assert not search(base, "annual leave", encoder(["annual leave"])[0]).degraded


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", b"\0" * 5_000])
def test_damaged_vectors_on_disk_are_made_anew(folder: Path, damage: bytes) -> None:
    make(folder).refresh()
    (stored,) = (folder.parent / "data").glob("*.npz")
    stored.write_bytes(damage)
    encoder = Encoder()
    base = make(folder, encoder)
    assert base.refresh()
    assert encoder.asked == 2
    assert base.complete
    assert base.problems == ()


def test_a_base_goes_on_through_everything_that_happens_to_its_folder(folder: Path) -> None:
    """Away, back with other files, unreadable, a file in its place: the last good index serves until there is a new one."""
    base = make(folder)
    assert base.refresh()
    away = folder.with_name("away")
    folder.rename(away)
    folder.write_text("a file now")
    assert base.refresh()
    assert ids(search(base, "annual leave", None)) == ["leave.md#1"]
    folder.unlink()
    away.rename(folder)
    (folder / "leave.md").write_text("# Leave\n\nAnnual leave is 30 days.", encoding="utf-8")
    assert base.refresh()
    assert "30 days" in search(base, "annual leave", None).sources[0].text
    assert base.problems == ()


def test_a_link_out_of_a_tenants_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.md").write_text("The bonus is 4,711 euros.", encoding="utf-8")
    (folder / "stolen.md").symlink_to(tmp_path / "other" / "secret.md")
    (folder / "inside.md").symlink_to(folder / "leave.md")
    base = Base([folder], tmp_path / "data", Encoder(), "toy", name="acme", tenants=["acme"])
    assert base.refresh()
    found = Knowledge([base]).reading("acme", "default").search("bonus euros", None, 5, 0.0)
    assert found.sources == ()
    assert base.problems == (Problem("acme/stolen.md", "is a link to something outside the folder"),)
    assert base.size == 3


def test_a_pipe_is_no_document(folder: Path) -> None:
    os.mkfifo(folder / "pipe.md")
    base = make(folder)
    assert base.refresh()
    assert base.size == 2


def test_a_base_that_is_closed_while_it_is_read_stops_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make(folder)
    read: list[str] = []

    def closing(self: Reader, path: Path) -> str:
        read.append(path.name)
        base.close()
        return "Text."

    monkeypatch.setattr(Reader, "read", closing)
    assert base.refresh()
    assert len(read) == 1
    assert base.indexed is None
