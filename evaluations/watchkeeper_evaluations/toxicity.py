"""The judge of toxicity: the one door to Detoxify, which runs the weights that the settings name.

`embedded`: ours, made once from the packaged encoder and the adapter in `adapter/` as a checkpoint that Detoxify loads.
A name of Detoxify's (`original`, `unbiased`, `multilingual`, …): its own weights, downloaded. A path: a checkpoint in
Detoxify's format (a pickle: load only what you trust). Knows nothing of records, windows or thresholds, nor of the guard's
head on the embedding, with which it shares no weights.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.embedded.hub import share_cores
from watchkeeper.embedded.weights import WeightsMissing, encoder_model
from watchkeeper.settings import Settings

log = logging.getLogger(__name__)

LABELS: Final = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")
ADAPTER: Final = Path(__file__).with_name("adapter")
CHECKPOINT: Final = "toxicity.ckpt"
BATCH: Final = 32
# More than any window of 512 tokens holds in ordinary writing; what follows would be cut off by the tokenizer anyway.
_CHARACTERS: Final = 20_000
_NETWORK_TIMEOUT_S: Final = 20.0


class JudgeUnavailable(Exception):
    """The judge's weights cannot be had. The message is one line that says what to change."""


class Card(msgspec.Struct, frozen=True):
    """What lies beside the adapter: which file it is and which encoder it was trained on."""

    sha256: str
    encoder_sha256: str


class ToxicityJudge:
    """Detoxify with some weights. `source` says which in words, `version` by content: it changes when scores would."""

    name: Final = "toxicity"

    def __init__(self, detoxify: Any, source: str, version: str) -> None:
        missing = [label for label in LABELS if label not in detoxify.class_names]
        if missing:
            raise JudgeUnavailable(
                f"{source} has no {', '.join(missing)}; Detoxify's own checkpoints have all of {', '.join(LABELS)}"
            )
        self._detoxify = detoxify
        self.source = source
        self.version = version

    def score(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Six labels, each (n,) in [0, 1]. Of a long text the model reads what its window holds (512 tokens); a blank one
        scores zero."""
        rows = [(index, _readable(text)) for index, text in enumerate(texts)]
        rows = sorted((row for row in rows if row[1]), key=lambda row: len(row[1]))
        scores = {label: np.zeros(len(texts), np.float32) for label in LABELS}
        for at in range(0, len(rows), BATCH):
            batch = rows[at : at + BATCH]
            found = self._detoxify.predict([text for _, text in batch])
            for label in LABELS:
                scores[label][[index for index, _ in batch]] = found[label]
        return scores


def load(settings: Settings) -> ToxicityJudge:
    """The judge that the settings name. A model of Detoxify's that cannot be downloaded is replaced by ours, and `source`
    says so. Raises `JudgeUnavailable`, or `WeightsMissing` where the encoder has not been fetched."""
    share_cores(0)
    wanted = settings.evaluations.toxicity
    if wanted == "embedded":
        return _embedded(settings.models)
    if wanted in _published():
        try:
            return _download(wanted)
        except (OSError, ValueError, RuntimeError) as error:
            reason = f"Detoxify's {wanted} cannot be downloaded ({_first_line(error)})"
            log.warning("%s; toxicity is judged by the embedded weights", reason)
            return _embedded(settings.models, f"; {reason}")
    return _checkpoint(Path(wanted).expanduser())


def assemble(models: Path) -> Path:
    """The checkpoint of our weights under `models`, made when it is not there; the same file every time after.

    Raises `JudgeUnavailable` when adapter or encoder are not the ones that belong together, `WeightsMissing`.
    """
    card = _card()
    home = models.expanduser().resolve() / "toxicity-judge"
    # The checkpoint names its own folder (Detoxify reads it from there), so the place is part of what it is.
    folder = home / hashlib.sha256(f"{card.sha256} {card.encoder_sha256} {home}".encode()).hexdigest()[:16]
    if not (folder / CHECKPOINT).is_file():
        share_cores(0)
        _check_adapter(card)
        _write(folder, _checked_encoder(models, card), card)
    return folder / CHECKPOINT


def _write(folder: Path, encoder: Path, card: Card) -> None:
    """All files into a folder beside, then one rename: whoever looks sees nothing or everything."""
    import torch

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".assembling-", dir=folder.parent) as place:
        made = Path(place) / "made"
        made.mkdir()
        for file in encoder.glob("*.*"):
            if file.name in {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}:
                shutil.copyfile(file, made / file.name)
        config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
        labels = dict(enumerate(LABELS))
        config |= {"architectures": ["BertForSequenceClassification"], "problem_type": "multi_label_classification"}
        config |= {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
        (made / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        names = {"model_name": "BertForSequenceClassification", "tokenizer_name": "BertTokenizer"}
        arch = {"args": {"model_type": str(folder), "num_classes": len(LABELS), **names}}
        settings = {"arch": arch, "dataset": {"args": {"classes": list(LABELS)}}}
        torch.save({"config": settings, "state_dict": _merge(encoder)}, made / CHECKPOINT)
        with contextlib.suppress(OSError):  # another process was first: its folder has the same content
            os.rename(made, folder)
    if not (folder / CHECKPOINT).is_file():
        raise JudgeUnavailable(f"{folder} is in the way: it holds no {CHECKPOINT}; remove it")


def _merge(encoder: Path) -> dict[str, Any]:
    """The encoder's weights with the adapter in them, under the names of BertForSequenceClassification; float32."""
    from safetensors.torch import load_file

    state = {f"bert.{name}": tensor.float() for name, tensor in load_file(encoder / "model.safetensors").items()}
    state.pop("bert.embeddings.position_ids", None)
    adapter = {name: tensor.float() for name, tensor in load_file(ADAPTER / "toxicity.safetensors").items()}
    for name, tensor in adapter.items():
        place, _, part = name.rpartition(".")
        if part == "up":
            state[f"{place}.weight"] += tensor @ adapter[f"{place}.down"]
        elif part != "down":
            state[name] = tensor
    return state


def _embedded(models: Path, because: str = "") -> ToxicityJudge:
    checkpoint = assemble(models)
    card = _card()
    version = f"embedded-{hashlib.sha256((card.sha256 + card.encoder_sha256).encode()).hexdigest()[:12]}"
    source = f"embedded: our adapter on the packaged encoder{because}"
    return ToxicityJudge(
        _detoxify(checkpoint=str(checkpoint), huggingface_config_path=str(checkpoint.parent)), source, version
    )


def _download(name: str) -> ToxicityJudge:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_TIMEOUT_S)  # Detoxify's download has no limit of its own
    try:
        detoxify = _detoxify(name)
    finally:
        socket.setdefaulttimeout(before)
    return ToxicityJudge(detoxify, f"Detoxify's {name}", f"detoxify-{Path(_published()[name]).stem}")


def _checkpoint(file: Path) -> ToxicityJudge:
    if not file.is_file():
        raise JudgeUnavailable(
            f"evaluations.toxicity: {str(file)!r} is neither embedded, nor {', '.join(_published())}, nor a checkpoint file"
        )
    beside = str(file.parent) if (file.parent / "config.json").is_file() else None
    try:
        detoxify = _detoxify(checkpoint=str(file), huggingface_config_path=beside)
    except Exception as error:  # a pickle can raise anything
        raise JudgeUnavailable(
            f"evaluations.toxicity: {file} is no checkpoint that Detoxify can load: {_first_line(error)}"
        ) from error
    return ToxicityJudge(detoxify, f"checkpoint {file.name}", f"checkpoint-{_sha256(file)[:12]}")


def _detoxify(*args: Any, **kwargs: Any) -> Any:
    from detoxify import Detoxify
    from transformers.utils import logging as transformers_logging

    quiet: Any = transformers_logging
    quiet.disable_progress_bar()
    return Detoxify(*args, **kwargs)


def _published() -> dict[str, str]:
    """Names of Detoxify's own weights → where they are downloaded from."""
    from detoxify.detoxify import MODEL_URLS

    return dict(MODEL_URLS)


def _card() -> Card:
    try:
        return msgspec.json.decode((ADAPTER / "toxicity.json").read_bytes(), type=Card)
    except (OSError, msgspec.DecodeError) as error:
        raise JudgeUnavailable(f"the card of the toxicity adapter cannot be read: {_first_line(error)}") from None


def _check_adapter(card: Card) -> None:
    if _sha256(ADAPTER / "toxicity.safetensors") != card.sha256:
        raise JudgeUnavailable(f"{ADAPTER / 'toxicity.safetensors'} is not the file that its card describes: install again")


def _checked_encoder(models: Path, card: Card) -> Path:
    encoder = encoder_model(models)
    found = _sha256(encoder / "model.safetensors")
    if found != card.encoder_sha256:
        raise JudgeUnavailable(
            f"the encoder in {encoder} (sha256 {found[:12]}) is not the one that the toxicity adapter was trained on "
            f"({card.encoder_sha256[:12]}): fetch it again"
        )
    return encoder


def _readable(text: str) -> str:
    """A very long text without runs of blanks, so that they cannot push its words out of the window; then cut."""
    return text.strip() if len(text) <= _CHARACTERS else " ".join(text.split())[:_CHARACTERS]


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise JudgeUnavailable(f"{file} cannot be read: {error.strerror}") from None


def _first_line(error: BaseException) -> str:
    lines: Iterator[str] = iter(str(error).splitlines())
    return next(lines, "") or type(error).__name__


__all__ = ["LABELS", "JudgeUnavailable", "ToxicityJudge", "WeightsMissing", "assemble", "load"]
