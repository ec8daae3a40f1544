"""The scorers: one file each, listed here. `MEANINGS` says what a score of some name means, without loading a model."""

from itertools import chain
from typing import Final

from watchkeeper.settings import Settings
from watchkeeper_evaluations.scorer import Score, Scorer
from watchkeeper_evaluations.scorers.grounded import Grounded
from watchkeeper_evaluations.scorers.language_match import LanguageMatch
from watchkeeper_evaluations.scorers.readability import Readability
from watchkeeper_evaluations.scorers.reference_f1 import ReferenceF1
from watchkeeper_evaluations.scorers.reference_similarity import ReferenceSimilarity
from watchkeeper_evaluations.scorers.refusal import Refusal
from watchkeeper_evaluations.scorers.relevance import Relevance
from watchkeeper_evaluations.scorers.repetition import Repetition
from watchkeeper_evaluations.scorers.support import Support
from watchkeeper_evaluations.scorers.toxicity import ToxicityScorer
from watchkeeper_evaluations.scorers.truncated import Truncated

_LIVE: Final = (Support, Grounded, Refusal, Repetition, LanguageMatch, Readability, Truncated)
"""Those that need nothing but the row."""

MEANINGS: Final[dict[str, Score]] = {
    score.name: score
    for score in chain.from_iterable(
        scorer.scores for scorer in (Relevance, *_LIVE, ReferenceF1, ReferenceSimilarity, ToxicityScorer)
    )
}
"""Every score by its name."""


def live(settings: Settings) -> tuple[Scorer, ...]:
    """The scorers of the quality of what was served. Where the settings switch the stage `embed` off there is no encoder,
    and relevance, which needs one, is left out."""
    scorers = tuple(scorer() for scorer in _LIVE)
    return (*scorers, Relevance(settings)) if settings.stages.embed else scorers


def all_scorers(settings: Settings) -> tuple[Scorer, ...]:
    """Those of `live`, those that hold an answer against the column `reference`, and toxicity, whose judge is loaded here
    (torch: seconds, hundreds of MB). Raises what loading it raises (`WeightsMissing`, `JudgeUnavailable`)."""
    from watchkeeper_evaluations.toxicity import load

    similarity = (ReferenceSimilarity(settings),) if settings.stages.embed else ()
    return (*live(settings), ReferenceF1(), *similarity, ToxicityScorer(load(settings)))
