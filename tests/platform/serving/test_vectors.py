"""Embeddings that are made once."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from watchkeeper.serving.vectors import VectorCache


class Encoder:
    """Counts what it is asked for; each text has its own vector. Fails at the texts in `fails`."""

    def __init__(self, width: int = 8) -> None:
        self.width = width
        self.asked: list[str] = []
        self.fails: set[str] = set()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.fails & set(texts):
            raise ConnectionError("away")
        self.asked += texts
        rows = [np.random.default_rng(sum(map(ord, text))).normal(size=self.width) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


def test_a_text_is_embedded_once_also_by_the_next_process(tmp_path: Path) -> None:
    encoder = Encoder()
    first = VectorCache(tmp_path, "m").of(["one", "two", "one"], encoder)
    again = VectorCache(tmp_path, "m").of(["two", "one", "three"], encoder)
    assert encoder.asked == ["one", "two", "three"]
    assert first.dtype == np.float32
    np.testing.assert_allclose(first[0], again[1])
    np.testing.assert_allclose(first[0], encoder(["one"])[0], atol=1e-3)


def test_another_model_has_other_vectors(tmp_path: Path) -> None:
    encoder = Encoder()
    VectorCache(tmp_path, "m").of(["one"], encoder)
    VectorCache(tmp_path, "n").of(["one"], encoder)
    assert encoder.asked == ["one", "one"]


def test_what_was_done_before_the_encoder_failed_is_kept(tmp_path: Path) -> None:
    encoder = Encoder()
    texts = [f"text {number}" for number in range(100)]
    encoder.fails = {"text 99"}
    with pytest.raises(ConnectionError):
        VectorCache(tmp_path, "m").of(texts, encoder)
    done = len(encoder.asked)
    assert done > 0
    encoder.fails = set()
    assert VectorCache(tmp_path, "m").of(texts, encoder).shape == (100, 8)
    assert len(encoder.asked) == 100


def test_texts_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    encoder = Encoder()
    VectorCache(tmp_path, "m").of([f"text {number}" for number in range(50)], encoder)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_size
    VectorCache(tmp_path, "m").of(["text 1"], encoder)
    assert file.stat().st_size < before / 2


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x03\x04broken"])
def test_a_broken_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    encoder = Encoder()
    VectorCache(tmp_path, "m").of(["one"], encoder)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    VectorCache(tmp_path, "m").of(["one"], encoder)
    VectorCache(tmp_path, "m").of(["one"], encoder)
    assert encoder.asked == ["one", "one"]


def test_every_cut_and_every_flipped_byte_gives_good_vectors_again(tmp_path: Path) -> None:
    encoder = Encoder()
    good = VectorCache(tmp_path, "m").of(["one", "two"], encoder)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            file.write_bytes(damaged)
            np.testing.assert_allclose(VectorCache(tmp_path, "m").of(["one", "two"], encoder), good, atol=1e-3)


def test_a_file_of_another_shape_is_made_anew(tmp_path: Path) -> None:
    encoder = Encoder()
    VectorCache(tmp_path, "m").of(["one"], encoder)
    (file,) = tmp_path.iterdir()
    with file.open("wb") as out:
        np.savez(out, keys=np.zeros((2, 16), dtype=np.uint8), vectors=np.full((2, 8), np.nan, dtype=np.float16))
    VectorCache(tmp_path, "m").of(["one"], encoder)
    assert encoder.asked == ["one", "one"]


def test_an_encoder_whose_vectors_change_their_length_fails_once(tmp_path: Path) -> None:
    VectorCache(tmp_path, "m").of(["one"], Encoder(8))
    cache = VectorCache(tmp_path, "m")
    with pytest.raises(ValueError, match="length"):
        cache.of(["one", "two"], Encoder(16))
    assert cache.of(["one", "two"], Encoder(16)).shape == (2, 16)


def test_vectors_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        VectorCache(tmp_path, "m").of(["one"], lambda texts: np.full((1, 4), np.nan, dtype=np.float32))


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert VectorCache(blocked / "inside", "m").of(["one"], Encoder()).shape == (1, 8)


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from watchkeeper.serving.vectors import VectorCache
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
cache = VectorCache(Path(sys.argv[1]), "m")
made = cache.of([str(number) for number in range(100)], lambda texts: np.eye(len(texts), 384, dtype=np.float32))
print(made.shape, cache.unkept, sep="|")
"""


def test_a_full_disk_costs_only_time_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(100, 384)|File too large"
    assert list(tmp_path.iterdir()) == []
