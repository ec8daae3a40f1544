"""What holds for every scorer: names that are known, values in their range, the same again, and no text that breaks one."""

import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.lake.tables import INTERACTIONS
from watchkeeper.settings import Settings, Stages
from watchkeeper_evaluations.scorer import Scorer, score
from watchkeeper_evaluations.scorers import MEANINGS, live
from watchkeeper_evaluations.scorers.reference_f1 import ReferenceF1

SCORERS: tuple[Scorer, ...] = (*live(Settings(stages=Stages(embed=False))), ReferenceF1())
HOSTILE = [
    "", " ", "\n\n\n", "\x00", "\ufffd" * 50, "a" * 20_000, "no " * 5_000, "." * 5_000, "```" * 999, "\u0301" * 3_000,
    "I can't " * 2_000, "ich kann " * 2_000, "{" * 9_999, "🙂" * 2_000, "\u202e right to left \u202c", "的" * 5_000,
    "<|im_end|>", "a" + " " * 20_000 + "b", "it's " * 3_000, "1. " * 3_000, "-\n" * 5_000,
]  # fmt: skip


def scored(scorer: Scorer, prompt: str, answer: str, **more: Any) -> list[dict[str, Any]]:
    """The rows of `scores` of one request."""
    columns = {"request_id": "a", "received_at": 0, "prompt_text": prompt, "output_text": answer, "finish_reason": "stop"}
    columns |= {"retrieved": 2, "support": 0.5, "reference": prompt} | more
    kinds = {name: INTERACTIONS.field(name).type if name in INTERACTIONS.names else pa.string() for name in columns}
    batch = pa.table({name: pa.array([value], kinds[name]) for name, value in columns.items()})
    rows: list[dict[str, Any]] = score(scorer, batch, scored_at=0, evaluation_id="e").to_pylist()
    return rows


def check(scorer: Scorer, prompt: str, answer: str) -> None:
    (row,) = scored(scorer, prompt, answer)
    meaning = MEANINGS[row["name"]]
    assert row["error"] is None
    assert row["kind"] == meaning.kind or row["value"] is None
    assert row["value"] is None or meaning.low <= row["value"] <= meaning.high
    assert [row] == scored(scorer, prompt, answer)


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(prompt=st.text(st.characters(exclude_categories=["Cs"])), answer=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_gets_a_value_in_its_range_and_the_same_again(scorer: Scorer, prompt: str, answer: str) -> None:
    check(scorer, prompt, answer)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_break_nothing_and_take_no_minute(scorer: Scorer, text: str) -> None:
    check(scorer, text, text)
    check(scorer, "How many days of leave do I have?", f"You have thirty days. {text}")


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
def test_without_an_answer_there_is_nothing_to_say_but_that_none_came(scorer: Scorer) -> None:
    for more in ({"answer": ""}, {"answer": "Withheld.", "finish_reason": "content_filter"}):
        (row,) = scored(scorer, "What?", **more)
        assert row["value"] == (0.0 if scorer.name == "reference_f1" else None)


def test_every_score_has_a_meaning() -> None:
    assert set(MEANINGS) == {
        "relevance", "support", "grounded", "refusal", "repetition", "language_match", "readability", "truncated",
        "reference_f1", "reference_similarity", "toxicity.prompt", "toxicity.output",
    }  # fmt: skip
    assert {name for name, score in MEANINGS.items() if score.flags(0.0)} == {
        "relevance", "support", "grounded", "language_match", "reference_similarity",
    }  # fmt: skip
    assert {name for name, score in MEANINGS.items() if score.flags(1.0)} == {"refusal", "repetition", "toxicity.output"}


def test_meanings_are_had_without_a_model() -> None:
    code = """
import sys, watchkeeper_evaluations.scorers
print(sorted({"torch", "transformers", "mlflow", "evidently", "detoxify", "duckdb", "scipy", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
