"""Trains the guard's injection head: does a text try to take over the instructions of an assistant?

    python -m watchkeeper_evaluations.training.injection --data DIR --out DIR --encoder DIR --attacks DIR

Positives and negatives of the corpora in `--attacks`, and, so that ordinary prompts give few false alarms, many of those
among the negatives; toxic texts too, which are another matter. Prints what was measured.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from watchkeeper.encoder import heads
from watchkeeper_evaluations.training import corpus, head, measure

SEED: Final = 31
_UGLY: Final = ("threat", "insult", "obscene", "hateful")


class Rows:
    """Texts, whether each is an attack, and what it counts."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.attacks: list[float] = []
        self.weights: list[float] = []

    def add(self, texts: Sequence[str], attack: bool, weight: float = 1.0) -> None:
        self.texts += texts
        self.attacks += [0.99 if attack else 0.005] * len(texts)
        self.weights += [weight] * len(texts)


def embed_in(carriers: Sequence[str], attacks: Sequence[str], rng: random.Random) -> list[str]:
    """Attacks between ordinary sentences, as a retrieved document carries them."""
    return [f"{rng.choice(carriers)} {attack}. {rng.choice(carriers)}" for attack in attacks]


def assemble(data: Path, attacks: Path) -> Rows:
    rng = random.Random(SEED)
    rows = Rows()
    known = list(corpus.injections(attacks))
    written = corpus.written("train", each=8)
    for attack in (True, False):
        texts = [text for _, split, text, bad in known if split == "train" and bad == attack]
        rows.add(texts, attack)
        if attack:
            short = rng.sample([text for text in texts if len(text) < 150], 900)
            rows.add(embed_in(written["carrier"], short, rng), True)
    rows.add([text for _, split, text, _ in known if split == "extra" and not corpus.held_out(text)], True)
    rows.add(written["injection"], True, 2.0)
    rows.add(embed_in(written["carrier"], written["injection"], rng), True, 2.0)
    more = corpus.written("attacks", each=6)
    rows.add(more["injection"], True, 2.0)
    rows.add(embed_in(more["carrier"], more["injection"], rng), True, 2.0)
    carriers = more["carrier"] + written["carrier"]
    rows.add([" ".join(rng.sample(carriers, rng.randint(1, 3))) for _ in range(300)], False, 3.0)
    for name in measure.CLEAN:
        rows.add(written[name], False, 4.0)
    for name in _UGLY:
        rows.add(written[name], False)
    for sentences in corpus.written("requests", each=4).values():
        rows.add(sentences, False, 6.0)
    ordinary = [text for source in corpus.ordinary(data).values() for text in source if not corpus.held_out(text)]
    asked = rng.sample(ordinary, 3000)
    rows.add(asked, False, 2.0)
    rows.add([corpus.misspell(text, rng) for text in asked if len(text) < 120][:500], False, 2.0)
    rows.add(rng.sample([text for text in corpus.answers(data) if text], 500), False)
    rows.add(
        rng.sample([example.text for example in corpus.davidson(data) if not corpus.held_out(example.text)], 600), False
    )
    rows.add([example.text for example in corpus.wiki(data) if not corpus.held_out(example.text)][:600], False)
    return rows


def figures(judge: measure.Judge, data: Path, attacks: Path) -> dict[str, str]:
    """AUC and recall on the corpora's own test sets and on written attacks, false alarms on ordinary texts."""
    table = {}
    known = list(corpus.injections(attacks))
    for source in ("s-labs", "neuralchemy"):
        rows = [(text, bad) for name, split, text, bad in known if (name, split) == (source, "test")]
        scores = judge([text for text, _ in rows])[:, 0]
        truth = np.array([bad for _, bad in rows])
        table[f"AUC, {source} test"] = f"{measure.auc(truth, scores):.3f} (n={len(rows)})"
        table[f"caught, {source} test"] = measure.shares(scores[truth])
        table[f"false alarms, {source} test"] = measure.shares(scores[~truth])
    extra = [text for _, split, text, _ in known if split == "extra" and corpus.held_out(text)]
    table["caught, yanismiraoui (seven languages)"] = measure.shares(judge(extra)[:, 0])
    written = corpus.written("held")
    table["caught, written attacks"] = measure.shares(judge(written["injection"])[:, 0])
    hidden = embed_in(written["carrier"], written["injection"], random.Random(SEED))
    table["caught, written attacks inside a document"] = measure.shares(judge(hidden)[:, 0])
    for name, texts in corpus.ordinary(data).items():
        table[f"false alarms, {name}"] = measure.shares(judge([text for text in texts if corpus.held_out(text)])[:, 0])
    for name in (*measure.CLEAN, "threat", "insult"):
        table[f"false alarms, written {name}"] = measure.shares(judge(written[name])[:, 0])
    votes = [example.text for example in corpus.surge(data)]
    table["false alarms, surge (toxic and not)"] = measure.shares(judge(votes)[:, 0])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "out", "encoder", "attacks"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = assemble(options.data, options.attacks)
    print(f"{len(rows.texts)} texts, {np.mean(rows.attacks):.1%} attacks", file=sys.stderr, flush=True)
    embedder = head.Embedder(options.encoder)
    goal = np.array(rows.attacks, np.float32)[:, None]
    network = head.fit(embedder(rows.texts), goal, np.array(rows.weights, np.float32), seed=SEED)
    head.save(network, options.out / "heads", "injection", ("injection",), embedder.sha256)
    fitted = heads.read(options.out / "heads", "injection")
    print(measure.table(figures(lambda texts: fitted.score(embedder(texts)), options.data, options.attacks)), flush=True)


if __name__ == "__main__":
    main()
