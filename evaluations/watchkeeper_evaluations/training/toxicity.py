"""Trains what judges toxicity: `judge`, an adapter on the encoder, and `head`, on the sentence embedding for the guard.

    python -m watchkeeper_evaluations.training.toxicity --data DIR --out DIR --encoder DIR --teacher DIR --attacks DIR

The two share neither weights nor a run: a guard must not be measured with itself. Prints what was measured.
"""

import argparse
import hashlib
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from watchkeeper_evaluations.toxicity import LABELS, Card
from watchkeeper_evaluations.training import corpus, measure
from watchkeeper_evaluations.training.teacher import Teacher

# What a written list means: (toxicity, severe, obscene, threat, insult, identity attack); nan: what the teacher says.
_UGLY: Final = {
    "threat": (0.95, 0.25, np.nan, 1.0, np.nan, 0.0),
    "insult": (0.97, np.nan, np.nan, 0.0, 1.0, 0.0),
    "obscene": (0.97, np.nan, 0.97, np.nan, np.nan, 0.0),
    "hateful": (0.97, 0.1, np.nan, 0.0, 0.6, 1.0),
    "hateful_threat": (0.98, 0.5, np.nan, 1.0, 0.5, 1.0),
}
# Lists that matter more than their number: a threat is rare in tweets, and so is a kind word about a group.
_TIMES: Final = {"threat": 3, "hateful_threat": 3, "threat_like": 2, "identity_neutral": 2, "counter_speech": 3}
_LEET: Final = str.maketrans({"i": "1", "o": "0", "a": "@", "e": "3", "s": "$"})


class Labelled:
    """Texts with soft targets (n, 6)."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.targets: list[NDArray[np.float32]] = []

    def add(self, texts: Sequence[str], targets: NDArray[np.float32]) -> None:
        self.texts.extend(texts)
        self.targets.append(np.clip(targets, 0.01, 0.99))

    @property
    def goal(self) -> NDArray[np.float32]:
        return np.concatenate(self.targets).astype(np.float32)


def assemble(data: Path, attacks: Path, teacher: Teacher, seed: int, each: int, offensive: int) -> Labelled:
    """The training texts: people's votes where there are any, the teacher for the other labels, zero for ordinary texts.

    `each`: sentences per written frame. `offensive`: at most so many of the tweets that are only offensive, which would
    otherwise be most of everything.
    """
    rng = random.Random(seed)
    labelled = Labelled()
    votes = [example for example in corpus.davidson(data) if not corpus.held_out(example.text)]
    only_offensive = [example for example in votes if example.toxic > 0.5 and (example.hate or 0) <= 0.5]
    kept = set(rng.sample(range(len(only_offensive)), min(offensive, len(only_offensive))))
    examples = [example for example in votes if example.toxic <= 0.5 or (example.hate or 0) > 0.5]
    examples += [example for row, example in enumerate(only_offensive) if row in kept]
    comments = [example for example in corpus.wiki(data) if not corpus.held_out(example.text)]
    examples += comments + [corpus.Example(example.text[-350:], example.toxic) for example in comments if not example.toxic]
    texts = [example.text for example in examples]
    labelled.add(texts, _voted(examples, teacher.score(texts)))
    for name, sentences in corpus.written("train", each, seed).items():
        sentences = sentences * _TIMES.get(name, 1)
        said = teacher.score(sentences)
        meant = np.array(_UGLY.get(name, (0.0,) * 6), np.float32)
        labelled.add(sentences, np.where(np.isnan(meant), said, meant))
        if name in ("obscene", "insult"):
            labelled.add([_disguise(text, rng) for text in sentences], np.where(np.isnan(meant), said, meant))
    clean = _ordinary(data, attacks, rng)
    labelled.add(clean, np.zeros((len(clean), 6), np.float32))
    return labelled


def _voted(examples: Sequence[corpus.Example], said: NDArray[np.float32]) -> NDArray[np.float32]:
    """The teacher's labels, corrected by people: they decide `toxicity`, and `identity_attack` where they were asked."""
    toxic = np.array([example.toxic for example in examples], np.float32)
    targets = said * np.where(toxic < 0.5, 0.3, 1.0)[:, None]
    targets[:, 0] = 0.8 * toxic + 0.2 * said[:, 0]
    for row, example in enumerate(examples):
        if example.hate is not None:
            targets[row, 5] = max(example.hate, 0.5 * said[row, 5])
            targets[row, 4] = max(targets[row, 4], 0.6 * example.hate)
    return np.asarray(targets, np.float32)


def _ordinary(data: Path, attacks: Path, rng: random.Random) -> list[str]:
    texts = [text for source in corpus.ordinary(data).values() for text in source if not corpus.held_out(text)]
    texts = rng.sample(texts, 2600) + rng.sample([text for text in corpus.answers(data) if text], 800)
    rows = list(corpus.injections(attacks))
    texts += rng.sample(
        [text for source, split, text, bad in rows if (source, split, bad) == ("s-labs", "train", False)], 1500
    )
    # An attack on instructions is no toxicity.
    texts += rng.sample(
        [text for source, split, text, bad in rows if (source, split, bad) == ("s-labs", "train", True)], 400
    )
    return texts + [corpus.misspell(text, rng) for text in rng.sample(texts, 400)]


def _disguise(text: str, rng: random.Random) -> str:
    """Spelt as people do who know that somebody filters: leet, stars, stretched letters."""
    words = text.split()
    at = max(range(len(words)), key=lambda place: (len(words[place]), place))
    word = words[at]
    kind = rng.randrange(3)
    if kind == 0:
        words[at] = word.translate(_LEET)
    elif kind == 1:
        words[at] = word[0] + "*" * max(len(word) - 2, 1) + word[-1]
    else:
        words[at] = word + word[-1] * 3
    return " ".join(words)


def train_judge(options: argparse.Namespace, report: Callable[[str], None]) -> None:
    from watchkeeper_evaluations.training.adapter import Trainee

    labelled = assemble(options.data, options.attacks, Teacher(options.teacher), seed=11, each=12, offensive=4000)
    report(f"{len(labelled.texts)} texts, mean of the labels {labelled.goal.mean(axis=0).round(3).tolist()}")
    trainee = Trainee(options.encoder, len(LABELS), seed=11)
    trainee.fit(labelled.texts, labelled.goal, epochs=options.epochs, seed=11, report=report)
    out = options.out / "adapter"
    out.mkdir(parents=True, exist_ok=True)
    trainee.save(out / "toxicity.safetensors")
    seal(out, options.encoder)
    print(measure.table(measure.toxicity(trainee.score, options.data)), flush=True)


def seal(out: Path, encoder: Path) -> None:
    """Writes the card that says which file the adapter is and which encoder it belongs to."""
    adapter, weights = (file.read_bytes() for file in (out / "toxicity.safetensors", encoder / "model.safetensors"))
    card = Card(sha256=hashlib.sha256(adapter).hexdigest(), encoder_sha256=hashlib.sha256(weights).hexdigest())
    (out / "toxicity.json").write_bytes(msgspec.json.format(msgspec.json.encode(card)) + b"\n")


def train_head(options: argparse.Namespace, report: Callable[[str], None]) -> None:
    from watchkeeper.encoder import heads
    from watchkeeper_evaluations.training import head

    labelled = assemble(options.data, options.attacks, Teacher(options.teacher), seed=23, each=8, offensive=2500)
    embedder = head.Embedder(options.encoder)
    report(f"{len(labelled.texts)} texts, mean of the labels {labelled.goal.mean(axis=0).round(3).tolist()}")
    rows = embedder(labelled.texts)
    network = head.fit(rows, labelled.goal, np.ones(len(rows), np.float32), seed=23)
    head.save(network, options.out / "heads", "toxicity", LABELS, embedder.sha256)
    fitted = heads.read(options.out / "heads", "toxicity")
    print(measure.table(measure.toxicity(lambda texts: fitted.score(embedder(texts)), options.data)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "out", "encoder", "teacher", "attacks"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", choices=("judge", "head"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, train in (("head", train_head), ("judge", train_judge)):
        if options.only in (None, name):
            train(options, report=lambda line: print(line, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
