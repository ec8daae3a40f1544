"""Embeddings of texts, kept on disk by content: what was embedded once, by this model, is not embedded again.

One file a model, written whole and put in place at once; one that cannot be read is made anew. Knows nothing of what the
texts are, nor of the encoder but the function that calls it.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""(n texts) → (n, d) unit rows; raises whatever it likes when it cannot."""

_BATCH: Final = 64
_KEY_BYTES: Final = 16


class VectorCache:
    """The vectors of one model in one folder. Not for several threads at once; several processes may share the folder.
    `unkept`: why the vectors could not be written last time; empty where they were."""

    def __init__(self, folder: Path, model: str) -> None:
        self.unkept = ""
        self._model = model
        self._file = folder / f"vectors-{hashlib.sha256(model.encode()).hexdigest()[:12]}.npz"
        self._known: dict[bytes, NDArray[np.float16]] | None = None

    def of(self, texts: Sequence[str], embed: Embed) -> NDArray[np.float32]:
        """The (n, d) vectors of the texts. Embeds those that are new, a batch at a time; vectors of other texts are
        forgotten. When `embed` raises, what it had done is kept, and the error goes on."""
        known = self._read() if self._known is None else self._known
        keys = [self._key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        self._known = {key: known[key] for key in keys if key in known}
        try:
            pending = list(new.items())
            for start in range(0, len(pending), _BATCH):
                batch = pending[start : start + _BATCH]
                made = np.asarray(embed([text for _, text in batch]), dtype=np.float16)
                if made.ndim != 2 or len(made) != len(batch) or not np.isfinite(made).all():
                    raise ValueError("the encoder gave no finite vector for each text")
                if self._known and len(next(iter(self._known.values()))) != made.shape[1]:
                    self._known.clear()
                    raise ValueError("the encoder's vectors have another length than they had")
                self._known.update(zip([key for key, _ in batch], made, strict=True))
        finally:
            if new or len(known) != len(self._known):
                self._write()
        return np.stack([self._known[key] for key in keys]).astype(np.float32)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._model}\0{text}".encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]

    def _read(self) -> dict[bytes, NDArray[np.float16]]:
        """What the file holds; nothing where it is missing, cut off, or not what this module writes."""
        try:
            with self._file.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                keys, vectors = stored["keys"], stored["vectors"]
        except Exception:  # whatever is wrong with a cache, it is made anew
            return {}
        sound = keys.ndim == 2 and keys.shape[1] == _KEY_BYTES and keys.dtype == np.uint8 and vectors.dtype == np.float16
        if not sound or vectors.ndim != 2 or len(keys) != len(vectors) or not np.isfinite(vectors).all():
            return {}
        return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}

    def _write(self) -> None:
        if not self._known:
            return
        # A cache that cannot be written costs time at the next start, and nothing now.
        draft = self._file.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as out:
                keys = np.frombuffer(b"".join(self._known), dtype=np.uint8).reshape(-1, _KEY_BYTES)
                np.savez(out, keys=keys, vectors=np.stack(list(self._known.values())))
            draft.replace(self._file)
            self.unkept = ""
        except OSError as error:
            self.unkept = error.strerror or type(error).__name__
            with contextlib.suppress(OSError):  # half a file helps nobody, least of all on a full disk
                draft.unlink()
