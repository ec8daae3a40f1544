"""What a judge of toxicity or injection is worth: the table that its card repeats. Knows nothing of how it was trained."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchkeeper_evaluations.training import corpus

Scores = NDArray[np.float32]
Judge = Callable[[Sequence[str]], Scores]

CLEAN: Final = (
    "threat_like",
    "insult_like",
    "identity_neutral",
    "counter_speech",
    "ordinary",
    "noisy",
    "foreign",
    "carrier",
)
_UGLY: Final = ("threat", "insult", "hateful", "hateful_threat")
_LABEL: Final = {"threat": 3, "hateful_threat": 3, "insult": 4, "hateful": 5}


def auc(truth: Sequence[bool] | NDArray[np.bool_], scores: Scores) -> float:
    """The chance that a positive scores above a negative; ties count half."""
    positive = np.asarray(truth, bool)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def table(rows: Mapping[str, str]) -> str:
    """A Markdown table of two columns."""
    return "\n".join(
        ["| measured on held-out texts | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )


def shares(scores: Scores) -> str:
    """How many are at or above the two thresholds of the default policy."""
    return f"{(scores >= 0.5).mean():.1%} at .5, {(scores >= 0.9).mean():.1%} at .9 (n={len(scores)})"


def toxicity(judge: Judge, folder: Path) -> dict[str, str]:
    """AUC of `toxicity` on three public sets, recall and false alarms on the written frames, bias over identity terms."""
    rows = {}
    surge = corpus.surge(folder)
    parts = {
        "surge (no text of it was trained on)": surge,
        "wiki": [example for example in corpus.wiki(folder) if corpus.held_out(example.text)],
        "davidson": [example for example in corpus.davidson(folder) if corpus.held_out(example.text)],
    }
    for name, examples in parts.items():
        scores = judge([example.text for example in examples])[:, 0]
        truth = np.array([example.toxic > 0.5 for example in examples])
        rows[f"AUC, {name}"] = f"{auc(truth, scores):.3f} (n={len(truth)})"
        rows[f"at .5, {name}"] = (
            f"{(scores[truth] >= 0.5).mean():.1%} caught, {(scores[~truth] >= 0.5).mean():.1%} false alarms"
        )
    for name, texts in corpus.ordinary(folder).items():
        held = [text for text in texts if corpus.held_out(text)]
        rows[f"false alarms, {name}"] = shares(judge(held).max(axis=1))
    rows.update(_written(judge))
    rows.update(_templates(judge, folder))
    return rows


def _written(judge: Judge) -> dict[str, str]:
    written = corpus.written("held")
    rows = {f"false alarms, written {name}": shares(judge(written[name]).max(axis=1)) for name in CLEAN}
    for name in _UGLY:
        scores = judge(written[name])
        rows[f"caught, written {name}"] = (
            f"toxicity {shares(scores[:, 0])}; own label {(scores[:, _LABEL[name]] >= 0.5).mean():.1%} at .5"
        )
    return rows


def _templates(judge: Judge, folder: Path) -> dict[str, str]:
    """AUC over the identity templates, and the terms with the most false alarms (one sentence in ten, at random)."""
    sample = random.Random(5).sample(corpus.templates(folder), 7_500)
    scores = judge([template.text for template in sample])[:, 0]
    toxic = np.array([template.toxic for template in sample])
    terms = np.array(
        [
            template.text.removeprefix("Being ")
            .split(" is ")[0 if template.frame == "being_adj" else -1]
            .split()[-1]
            .lower()
            for template in sample
        ]
    )
    clean = scores[~toxic] >= 0.5
    rates = {
        term: float(clean[terms[~toxic] == term].mean())
        for term in np.unique(terms[~toxic])
        if (terms[~toxic] == term).sum() >= 20
    }
    worst = sorted(rates, key=lambda term: -rates[term])[:4]
    aucs = [auc(toxic[terms == term], scores[terms == term]) for term in rates]
    return {
        "AUC, identity templates": f"{auc(toxic, scores):.3f} (n={len(sample)}); lowest of a term {min(aucs):.3f}",
        "false alarms, identity templates": f"{clean.mean():.1%} at .5; highest of a term: "
        + ", ".join(f"{term} {rates[term]:.0%}" for term in worst),
        "missed, identity templates": f"{(scores[toxic] < 0.5).mean():.1%} at .5",
    }
