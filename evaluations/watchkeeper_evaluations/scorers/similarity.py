"""How near two texts are in meaning, by the encoder of the set-up. Knows nothing of what the texts are to each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from watchkeeper.settings import Settings
from watchkeeper_evaluations.scorer import ScorerUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pair = tuple[str | None, str | None]


class Similarity:
    """Cosines through the encoder that the settings name. A text that comes more than once in a call is embedded once; a
    long one in windows, as the gateway does, and its vector is their mean."""

    def __init__(self, settings: Settings) -> None:
        self._encoder = settings.encoder
        self.source = f"encoder {settings.encoder.model}"

    def version(self, own: str) -> str:
        """`own` with the encoder's name, since another encoder gives other scores. Without blanks."""
        return f"{own}-{'-'.join(self._encoder.model.split())}"

    def of(self, pairs: Sequence[Pair]) -> list[float | None]:
        """The cosine of each pair, in [0, 1] (what points apart is 0); None where one of the two is None or blank.

        Raises `ScorerUnavailable` while the encoder is away: no row is at fault then; and `TextRefused` where it does not
        take the texts: given one by one, the other rows get their score.
        """
        texts = [text for pair in pairs if _whole(pair) for text in pair if text]
        vectors = self._vectors(list(dict.fromkeys(texts)))
        return [
            min(max(float(vectors[one] @ vectors[other]), 0.0), 1.0) if one and other and _whole((one, other)) else None
            for one, other in pairs
        ]

    def _vectors(self, texts: Sequence[str]) -> "dict[str, NDArray[np.float32]]":
        """Text → its unit vector."""
        import os

        import numpy as np

        from watchkeeper.encoder.client import EncoderUnavailable, TextRefused, embed_blocking
        from watchkeeper.serving.stages.embed import windows

        cut = {text: windows(text) for text in texts}
        pieces = list(dict.fromkeys(piece for parts in cut.values() for piece in parts))
        key = os.environ.get(self._encoder.api_key_env) if self._encoder.api_key_env else None
        try:
            rows = embed_blocking(self._encoder.url, self._encoder.model, pieces, api_key=key)
        except TextRefused:
            raise  # a row is at fault, and must not hold up the others for ever
        except EncoderUnavailable as away:
            raise ScorerUnavailable(f"{away}; start it with `watchkeeper encoder`, then run this again") from away
        known = dict(zip(pieces, rows, strict=True))
        means = {text: np.mean(np.stack([known[piece] for piece in parts]), axis=0) for text, parts in cut.items()}
        return {text: mean / max(float(np.linalg.norm(mean)), 1e-9) for text, mean in means.items()}


def _whole(pair: Pair) -> bool:
    return all(text and text.strip() for text in pair)
