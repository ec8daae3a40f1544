"""Cosines through an encoder over HTTP: each text embedded once, long ones in windows, none while the encoder is away."""

from typing import Any

import pytest

from watchkeeper.settings import Encoder, Settings, Stages
from watchkeeper_evaluations.scorer import ScorerBroken, ScorerUnavailable, score
from watchkeeper_evaluations.scorers import all_scorers, live
from watchkeeper_evaluations.scorers.reference_similarity import ReferenceSimilarity
from watchkeeper_evaluations.scorers.relevance import Relevance
from watchkeeper_evaluations.scorers.similarity import Similarity


def test_texts_that_say_the_same_are_near(encoder: Any) -> None:
    same, other, nothing, blank = Similarity(encoder.settings).of(
        [("days of leave", "leave of days"), ("days of leave", "an office dog"), ("days", None), ("days", " ")]
    )
    assert same == pytest.approx(1.0, abs=1e-4)
    assert other == pytest.approx(0.0, abs=1e-4)
    assert nothing is None
    assert blank is None


def test_each_text_is_embedded_once(encoder: Any) -> None:
    Similarity(encoder.settings).of([("a b", "c d"), ("c d", "a b"), ("a b", "a b"), (None, "never")])
    assert sorted(encoder.asked) == ["a b", "c d"]


def test_a_long_text_is_cut_into_windows(encoder: Any) -> None:
    long = "leave " * 400
    (value,) = Similarity(encoder.settings).of([(long, "leave")])
    assert value == pytest.approx(1.0, abs=1e-2)
    assert max(map(len, encoder.asked)) <= 1000


def test_another_encoder_is_another_version(encoder: Any) -> None:
    other = Settings(encoder=Encoder(model="an other one"))
    assert Relevance(encoder.settings).version != Relevance(other).version
    assert " " not in Relevance(other).version


def test_relevance_and_similarity_of_rows(encoder: Any, rows: Any) -> None:
    batch = rows(
        prompt_text=["days of leave", "days of leave", None],
        output_text=["leave of days", "an office dog", "days"],
        reference=["days leave of", None, "days"],
        finish_reason=["stop", "stop", "content_filter"],
    )
    assert [said["relevance"] for said in Relevance(encoder.settings).score(batch)] == [
        pytest.approx(1.0, abs=1e-4),
        pytest.approx(0.0, abs=1e-4),
        None,
    ]
    found = [said["reference_similarity"] for said in ReferenceSimilarity(encoder.settings).score(batch)]
    assert found == [pytest.approx(1.0, abs=1e-4), None, 0.0]


def test_with_the_encoder_away_no_row_is_given_up(encoder: Any, rows: Any) -> None:
    """Not even a single one: it stays unscored, and the reason is one line that says what to start."""
    encoder.status = 503
    batch = rows(request_id=["a"], received_at=[0], prompt_text=["days"], output_text=["of leave"])
    with pytest.raises(ScorerUnavailable, match="status 503; start it with `watchkeeper encoder`"):
        score(Relevance(encoder.settings), batch, scored_at=0, evaluation_id="e")


def test_a_text_that_the_encoder_refuses_costs_its_row_alone(encoder: Any, rows: Any) -> None:
    """An encoder takes only so many tokens: that one text is too long says nothing of the others."""
    encoder.refuses = "endless"
    batch = rows(
        request_id=["a", "b", "c"], received_at=[0, 0, 0], prompt_text=["days", "endless days", "leave"],
        output_text=["of days"] * 3, finish_reason=["stop"] * 3,
    )  # fmt: skip
    found = score(Relevance(encoder.settings), batch, scored_at=0, evaluation_id="e").sort_by("request_id").to_pylist()
    assert [row["value"] is not None for row in found] == [True, False, True]
    assert [row["error"] for row in found] == [None, "TextRefused: the encoder refused the text: status 413", None]


def test_an_encoder_that_refuses_all_texts_is_at_fault_itself(encoder: Any, rows: Any) -> None:
    encoder.refuses = "days"
    batch = rows(
        request_id=["a", "b"], received_at=[0, 0], prompt_text=["days"] * 2, output_text=["of days"] * 2,
        finish_reason=["stop"] * 2,
    )  # fmt: skip
    with pytest.raises(ScorerBroken, match="none of 2 rows: TextRefused: the encoder refused the text: status 413"):
        score(Relevance(encoder.settings), batch, scored_at=0, evaluation_id="e")


def test_without_the_stage_embed_there_is_no_relevance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchkeeper_evaluations.toxicity.load", lambda settings: _Judge())
    without = Settings(stages=Stages(embed=False))
    names = {scorer.name for scorer in all_scorers(without)}
    assert {"relevance", "reference_similarity"} & names == set()
    assert {"grounded", "reference_f1", "toxicity"} <= names
    assert "relevance" in {scorer.name for scorer in live(Settings())}


class _Judge:
    version, source = "1", "a test"

    def score(self, texts: Any) -> Any:
        return {}
