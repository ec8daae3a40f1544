"""How well passages are found, and how well support tells answers that rest on their sources from those that do not.

    BENCH_DATA=FOLDER python tests/benchmarks/grounding.py     # where the labelled public data lie, else ../shared/data

Retrieval: the share of questions whose passage is among the best five, against plain BM25, plain cosine, and both fused by
reciprocal rank. Support: the area under the ROC curve over people's labels, against plain word overlap and cosine. Without
that data it says so, and measures on the sample handbook and the questions that lie beside this file.
"""

import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import bm25s
import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from table import Figure, Row, show

from watchkeeper.embedded.embeddings import Encoder
from watchkeeper.embedded.weights import encoder_model
from watchkeeper.record import Source
from watchkeeper.serving import words
from watchkeeper.serving.check import support
from watchkeeper.serving.index import Index, text_of
from watchkeeper.serving.passages import Passage, cut
from watchkeeper.settings import Settings

HERE: Final = Path(__file__).parent
DATA: Final = Path(os.environ.get("BENCH_DATA") or HERE.parents[2] / "shared" / "data")
HANDBOOK: Final = HERE.parent / "platform" / "serving" / "handbook"
K: Final = 5
FUSION: Final = 60
"""Reciprocal rank fusion's own constant, as its authors have it."""
MOST_QUESTIONS: Final = 600
PARTS: Final = 5
"""So many parts of the questions give a figure its spread: the least and the most of them."""

Vectors = NDArray[np.float32]
Rank = Callable[[int], Sequence[int]]


class Questions(msgspec.Struct, frozen=True):
    """A corpus, and for each question the places of the passages that answer it."""

    name: str
    passages: list[Passage]
    asked: list[str]
    answers: list[set[int]]


def rows() -> Iterator[Row]:
    encoder = Encoder(str(encoder_model(Settings().models)))
    if not DATA.is_dir():
        print(f"no labelled data in {DATA}: only what lies beside this file is measured", file=sys.stderr)
    for questions in (*_public(), *_own()):
        yield from _retrieval(questions, encoder)
    yield from _supported(encoder)


def _public() -> Iterator[Questions]:
    if (DATA / "halueval_general.jsonl").is_file():
        yield _halueval()
    if (DATA / "begin_dev_wow.tsv").is_file():
        yield _begin()


def _own() -> Iterator[Questions]:
    yield _handbook()
    for language in ("zh", "ja"):
        rows = [msgspec.json.decode(line) for line in (HERE / "cjk.jsonl").read_bytes().splitlines()]
        rows = [row for row in rows if row["language"] == language]
        passages = [Passage(f"{at}", row["title"], row["text"]) for at, row in enumerate(rows)]
        yield Questions(
            f"{language}, handbook", passages, [row["question"] for row in rows], [{at} for at in range(len(rows))]
        )


def _halueval() -> Questions:
    """Users' questions to answers that were given to them: thousands of passages on everything."""
    rows = [msgspec.json.decode(line) for line in (DATA / "halueval_general.jsonl").read_bytes().splitlines()]
    passages: list[Passage] = []
    places: list[set[int]] = []
    for row in rows:
        parts = cut(f"{row['ID']}.txt", row["chatgpt_response"])
        places.append(set(range(len(passages), len(passages) + len(parts))))
        passages += [msgspec.structs.replace(part, title="") for part in parts]
    step = max(1, len(rows) // MOST_QUESTIONS)
    chosen = [at for at in range(0, len(rows), step) if places[at]]
    return Questions("HaluEval answers", passages, [rows[at]["user_query"] for at in chosen], [places[at] for at in chosen])


def _begin() -> Questions:
    """What somebody said in a talk to the sentence of Wikipedia that the next one was to rest on."""
    rows = _begin_rows()
    texts = list(dict.fromkeys(row["knowledge"] for row in rows))
    passages = [Passage(str(at), "", text) for at, text in enumerate(texts)]
    asked = {row["message"]: texts.index(row["knowledge"]) for row in rows if len(row["message"].split()) > 5}
    return Questions("Wizard of Wikipedia", passages, list(asked), [{at} for at in asked.values()])


def _begin_rows() -> list[dict[str, str]]:
    with (DATA / "begin_dev_wow.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _handbook() -> Questions:
    passages = [
        passage
        for path in sorted(HANDBOOK.rglob("*.md"))
        for passage in cut(path.relative_to(HANDBOOK).as_posix(), path.read_text(encoding="utf-8"))
    ]
    rows = [msgspec.json.decode(line) for line in (HERE / "handbook.jsonl").read_bytes().splitlines()]
    answers = [{at for at, passage in enumerate(passages) if row["holds"] in passage.text} for row in rows]
    missing = [row["holds"] for row, places in zip(rows, answers, strict=True) if not places]
    if missing:
        raise ValueError(f"no passage of the handbook holds {missing[0]!r}")
    return Questions("sample handbook", passages, [row["question"] for row in rows], answers)


def _retrieval(given: Questions, encoder: Encoder) -> Iterator[Row]:
    texts = [text_of(passage) for passage in given.passages]
    vectors, asked = _embedded(encoder, texts), _embedded(encoder, given.asked)
    index = Index(given.passages, vectors)
    places = {passage.id: at for at, passage in enumerate(given.passages)}

    def ours(at: int) -> list[int]:
        return [places[source.id] for source in index.search(given.asked[at], asked[at], K, 0.0).sources]

    plain, cosine = _plain_bm25(texts, given.asked), _order(asked @ vectors.T)
    what = f"recall@{K}, {given.name}: {len(given.asked)} questions, {len(given.passages):,} passages"
    found = _recall(given, ours)
    peers: list[tuple[str, Rank]] = [
        ("plain BM25", lambda at: plain[at][:K]),
        ("plain cosine", lambda at: cosine[at][:K]),
        ("both by reciprocal rank", lambda at: _fused(plain[at], cosine[at])),
    ]
    for name, rank in peers:
        yield Row(what, found, name, _recall(given, rank), less_is_better=False)


def _recall(given: Questions, rank: Rank) -> Figure:
    """The share of the questions whose passage is among the best `K`; least and most of their parts."""
    hits = [bool(given.answers[at] & set(rank(at))) for at in range(len(given.asked))]
    parts = [sum(part) / len(part) for part in (hits[start::PARTS] for start in range(PARTS)) if part]
    return Figure(sum(hits) / len(hits), min(parts), max(parts), "")


def _plain_bm25(texts: Sequence[str], asked: Sequence[str]) -> list[list[int]]:
    """The library's own defaults over the same words."""
    index = bm25s.BM25()
    index.index([words.content(text) for text in texts], show_progress=False)
    known = index.vocab_dict
    scores = []
    for question in asked:
        terms = [term for term in words.content(question) if term in known]
        scores.append(index.get_scores(terms) if terms else np.zeros(len(texts), dtype=np.float32))
    return _order(np.stack(scores))


def _order(scores: NDArray[Any]) -> list[list[int]]:
    """The best hundred of each row, best first; what has no score at all is in none."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    return [[int(at) for at in row if scores[number, at] > 0] for number, row in enumerate(order)]


def _fused(*rankings: Sequence[int]) -> list[int]:
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, at in enumerate(ranking, start=1):
            scores[at] = scores.get(at, 0.0) + 1 / (FUSION + rank)
    return sorted(scores, key=lambda at: -scores[at])[:K]


def _supported(encoder: Encoder) -> Iterator[Row]:
    if not (DATA / "begin_dev_wow.tsv").is_file():
        print(f"no begin_dev_wow.tsv in {DATA}: how well support tells is not measured", file=sys.stderr)
        return
    rows = _begin_rows()
    labels = np.array([row["begin_label"] == "Fully attributable" for row in rows])
    ours = [_score(row) for row in rows]
    overlap = [_overlap(row) for row in rows]
    both = _embedded(encoder, [row["knowledge"] for row in rows]), _embedded(encoder, [row["response"] for row in rows])
    cosine = [float(source @ said) for source, said in zip(*both, strict=True)]
    what = f"AUC of support on people's labels (BEGIN, Wizard of Wikipedia, {len(rows)} answers)"
    found = _aucs(labels, ours)
    for name, scores in (("share of words in the source", overlap), ("cosine", cosine)):
        yield Row(what, found, name, _aucs(labels, scores), less_is_better=False)


def _score(row: dict[str, str]) -> float:
    found = support(row["response"], [Source("1", "", 1.0, row["knowledge"])], row["message"])
    return 0.0 if found.score is None else found.score  # what claims nothing rests on nothing


def _overlap(row: dict[str, str]) -> float:
    held, said = set(words.tokens(row["knowledge"])), words.tokens(row["response"])
    return sum(token in held for token in said) / max(1, len(said))


def _aucs(labels: NDArray[np.bool_], scores: Sequence[float]) -> Figure:
    """Of all, and least and most with one part of the rows left out: a spread without new data."""
    values = np.array(scores)
    part = np.arange(len(labels)) % PARTS
    without = [_auc(labels[part != at], values[part != at]) for at in range(PARTS)]
    return Figure(_auc(labels, values), min(without), max(without), "")


def _auc(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    ranks = rankdata(scores)
    good = int(labels.sum())
    return float((ranks[labels].sum() - good * (good + 1) / 2) / (good * (len(labels) - good)))


def _embedded(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # like lengths together: little padding
    made = np.zeros((len(texts), 384), dtype=np.float32)
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        made[batch] = encoder.embed(encoder.tokens([texts[at] for at in batch]))
    return made


if __name__ == "__main__":
    show(rows())
