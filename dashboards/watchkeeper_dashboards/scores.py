"""What the scores are called here and what they say. A score that is not listed is shown under its own name.

The dashboard keeps words of its own: the scorers' code would bring their libraries. Knows no values.
"""

from dataclasses import dataclass
from typing import Final, Literal

from watchkeeper_dashboards import units


@dataclass(frozen=True)
class ScoreWords:
    """All scores lie in [0, 1]. `share`: each request says yes or no, so that a mean is a share. `better`: which way is
    good (None: neither)."""

    name: str
    label: str
    meaning: str
    better: Literal["higher", "lower"] | None = "higher"
    share: bool = False


SCORES: Final = (
    ScoreWords("relevance", "Relevance", "how close the answer is to the question"),
    ScoreWords("support", "Support", "sentences that the sources hold"),
    ScoreWords("grounded", "Grounded", "answers that rest on the sources", share=True),
    ScoreWords("refusal", "Refusals", "answers that decline to answer", "lower", share=True),
    ScoreWords("repetition", "Repetition", "how much of the answer repeats itself", "lower"),
    ScoreWords("language_match", "Language match", "answers in the question's language", share=True),
    ScoreWords("readability", "Readability", "how easy the answer is to read", None),
    ScoreWords("truncated", "Cut off", "answers that hit the token limit", "lower", share=True),
    ScoreWords("toxicity.output", "Toxicity of answers", "what the judge says of answers", "lower"),
    ScoreWords("toxicity.prompt", "Toxicity of prompts", "what the judge says of prompts", None),
    ScoreWords("answered", "Answered", "requests that got an answer", share=True),
    ScoreWords("reference_f1", "Overlap with reference", "words shared with the expected one"),
    ScoreWords("reference_similarity", "Closeness to reference", "how close in meaning"),
)
"""In the order in which pages show them."""

_BY_NAME: Final = {score.name: score for score in SCORES}


def words_of(name: str) -> ScoreWords:
    """What is known of a score; of one that nobody described, its name."""
    return _BY_NAME.get(name) or ScoreWords(name, name.replace("_", " ").replace(".", " ").capitalize(), "", None)


def is_detail(name: str) -> bool:
    """Whether it is a part of a score that is listed (`toxicity.prompt.insult`): rows have it only where it says something,
    so that a chart of it would show the worst alone."""
    return any(name.startswith(f"{score.name}.") for score in SCORES)


def in_order(names: list[str]) -> list[str]:
    """Those that are listed first, in the order of `SCORES`, then the others by name."""
    listed = [score.name for score in SCORES if score.name in names]
    return [*listed, *sorted(set(names) - set(listed))]


def score_of_one(score: ScoreWords, value: float | None) -> str:
    """A single score as it is read: yes or no, or two digits."""
    if score.share and value in (0.0, 1.0):
        return "yes" if value else "no"
    return units.score(value)
