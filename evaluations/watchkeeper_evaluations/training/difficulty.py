"""Trains the cascade's difficulty head: is a prompt of a kind that small models fail at?

    python -m watchkeeper_evaluations.training.difficulty --data DIR --out DIR --encoder DIR

Nobody has said of these prompts how hard they are. What is taken for hard are sums, programs and puzzles: GSM8K, and the
self-instruct tasks of such applications; for easy what people ask of an assistant otherwise: the other tasks, and queries
that ChatGPT answered without an invention (HaluEval). MT-bench is for measuring only. Prints what was measured.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchkeeper.encoder import heads
from watchkeeper.serving.difficulty import counted
from watchkeeper_evaluations.training import corpus, head, measure

SEED: Final = 31
EACH: Final = 300
"""Prompts of GSM8K and of HaluEval: there are more, of one kind each."""
L2: Final = 30.0
HARD_APPS: Final = frozenset(
    (
        "Leetcode",
        "Wolfram alpha",
        "(Wolfram alpha)?",
        "GeeksforGeeks",
        "StackOverflow",
        "Github",
        "Sudoku",
        "Wordle",
        "MS Excel",
        "w3schools",
    )
)
HARD: Final = ("reasoning", "math", "coding")
EASY: Final = ("writing", "roleplay", "humanities")
"""Categories of MT-bench; extraction and stem are neither."""

Judge = Callable[[Sequence[str]], NDArray[np.float32]]


def assemble(data: Path) -> dict[str, tuple[list[str], bool]]:
    """Prompts to train on by where they come from, and whether they count as hard; each source counts the same."""
    rng = random.Random(SEED)
    tasks = list(corpus.tasks(data))
    sums = corpus.ordinary(data)["gsm8k"]
    queries = [text for text, invented in corpus.queries(data) if not invented]
    sources = {
        "gsm8k": (rng.sample(sums, len(sums)), True),
        "hard tasks": ([text for text, app in tasks if app in HARD_APPS], True),
        "other tasks": ([text for text, app in tasks if app not in HARD_APPS], False),
        "halueval": (rng.sample(queries, len(queries)), False),
    }
    return {
        name: ([text for text in texts if not corpus.held_out(text)][:EACH], hard)
        for name, (texts, hard) in sources.items()
    }


def figures(judge: Judge, data: Path) -> dict[str, str]:
    """AUC of hard against easy, on prompts that were not trained on."""
    by_category = corpus.questions(data)
    held = {name: [text for text in texts if corpus.held_out(text)] for name, texts in corpus.ordinary(data).items()}
    queries = [(text, invented) for text, invented in corpus.queries(data) if corpus.held_out(text)]
    tasks = [(text, app in HARD_APPS) for text, app in corpus.tasks(data) if corpus.held_out(text)]

    def auc(rows: Sequence[tuple[str, bool]]) -> str:
        truth = np.array([hard for _, hard in rows])
        return f"{measure.auc(truth, judge([text for text, _ in rows])):.3f} ({truth.sum()} hard, {(~truth).sum()} easy)"

    easy = [(text, False) for name in EASY for text in by_category[name]]
    table = {
        "MT-bench, reasoning, math, coding against writing, roleplay, humanities": auc(
            [(text, True) for name in HARD for text in by_category[name]] + easy
        )
    }
    for name in (*HARD, "extraction", "stem"):
        table[f"MT-bench, {name} against the same"] = auc([(text, True) for text in by_category[name]] + easy)
    table["GSM8K against HaluEval's queries"] = auc(
        [(text, True) for text in held["gsm8k"]] + [(text, False) for text, invented in queries if not invented]
    )
    table["self-instruct tasks by application"] = auc(tasks)
    table["HaluEval: ChatGPT invented something"] = auc(queries)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "out", "encoder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    embedder = head.Embedder(given.encoder)
    sources = assemble(given.data)
    texts = [text for prompts, _ in sources.values() for text in prompts]
    hard = np.array([hard for prompts, hard in sources.values() for _ in prompts])
    weights = np.array([EACH / 2 / len(prompts) for prompts, _ in sources.values() for _ in prompts], np.float32)
    arrays = head.fit_linear(embedder(texts), hard, weights, L2)
    head.write(arrays, given.out, "difficulty", ["hard"], embedder.sha256)
    made = heads.read(given.out, "difficulty")
    print(measure.table(figures(lambda prompts: made.score(embedder(prompts))[:, 0], given.data)))
    print(measure.table(figures(lambda prompts: np.array([counted(text) for text in prompts], np.float32), given.data)))
    for name, prompts in corpus.questions(given.data).items():
        print(name, np.percentile(made.score(embedder(prompts))[:, 0], [10, 50, 90]).round(2))
    for name, (prompts, _) in sources.items():
        print(name, np.percentile(made.score(embedder(prompts))[:, 0], [10, 50, 90]).round(2))


if __name__ == "__main__":
    main()
