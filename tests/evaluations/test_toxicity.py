"""The judge of toxicity through Detoxify: what it says, which weights it says it used, how it is made and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

import watchkeeper_evaluations.toxicity as judge_module
from watchkeeper.embedded.weights import WeightsMissing, encoder_model
from watchkeeper.settings import Evaluations, Settings
from watchkeeper_evaluations.toxicity import ADAPTER, CHECKPOINT, LABELS, JudgeUnavailable, ToxicityJudge, assemble, load


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder of our own with the packaged encoder in it."""
    try:
        encoder = encoder_model(Settings().models)
    except WeightsMissing as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("models")
    (folder / encoder.name).symlink_to(encoder)
    return folder


@pytest.fixture(scope="module")
def judge(models: Path) -> ToxicityJudge:
    return load(Settings(models=models))


class Fake:
    """Detoxify's face: a text scores its length / 1000, and what is asked is remembered."""

    def __init__(self, class_names: tuple[str, ...] = LABELS) -> None:
        self.class_names = list(class_names)
        self.asked: list[list[str]] = []

    def predict(self, texts: list[str]) -> dict[str, Any]:
        self.asked.append(texts)
        values = [len(text) / 1000 for text in texts]
        return {name: values[0] if len(values) == 1 else values for name in self.class_names}


def test_scores_come_back_in_the_order_of_the_texts_whatever_the_batches() -> None:
    fake = Fake()
    texts = ["x" * ((37 * number) % 101) for number in range(101)]
    scores = ToxicityJudge(fake, "fake", "1").score(texts)
    assert set(scores) == set(LABELS)
    np.testing.assert_allclose(scores["insult"], [len(text) / 1000 for text in texts], atol=1e-6)
    assert [len(text) for batch in fake.asked for text in batch] == sorted(len(text) for text in texts if text)
    assert max(map(len, fake.asked)) <= judge_module.BATCH


def test_blank_texts_score_zero_and_are_not_asked_about() -> None:
    fake = Fake()
    scores = ToxicityJudge(fake, "fake", "1").score(["", " \n\t", "abc"])
    assert scores["toxicity"].tolist() == pytest.approx([0.0, 0.0, 0.003])
    assert fake.asked == [["abc"]]


def test_blanks_cannot_push_the_words_out_of_the_window() -> None:
    fake = Fake()
    ToxicityJudge(fake, "fake", "1").score([" hello" + " " * 200_000 + "you idiot"])
    assert fake.asked == [["hello you idiot"]]


def test_no_texts_give_no_scores() -> None:
    assert all(len(values) == 0 for values in ToxicityJudge(Fake(), "fake", "1").score([]).values())


def test_a_checkpoint_without_the_six_labels_is_refused() -> None:
    with pytest.raises(JudgeUnavailable, match="has no threat"):
        ToxicityJudge(Fake(("toxicity", "severe_toxicity", "obscene", "insult", "identity_attack")), "mine", "1")


def test_a_name_that_is_neither_model_nor_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(JudgeUnavailable, match=r"'nope\.ckpt' is neither embedded, nor original, .* nor a checkpoint file"):
        load(Settings(models=tmp_path, evaluations=Evaluations(toxicity="nope.ckpt")))


def test_a_file_that_is_no_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.ckpt"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(JudgeUnavailable, match=r"mine\.ckpt is no checkpoint that Detoxify can load"):
        load(Settings(models=tmp_path, evaluations=Evaluations(toxicity=str(file))))


def test_without_the_encoder_assembling_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        assemble(tmp_path)


def test_the_adapter_is_small() -> None:
    assert (ADAPTER / "toxicity.safetensors").stat().st_size < 1_000_000


@pytest.mark.models
def test_the_judge_tells_ugly_texts_from_plain_ones(judge: ToxicityJudge) -> None:
    ugly = ["I will find you and kill you", "you are a stupid worthless idiot", "go fuck yourself"]
    plain = ["thank you, that was very helpful", "how do I kill a process on port 8080", "I am a proud gay man", "hello"]
    scores = judge.score(ugly + plain)["toxicity"]
    assert (scores[:3] >= 0.5).all()
    assert (scores[3:] < 0.5).all()
    labels = judge.score(ugly)
    assert labels["threat"][0] >= 0.5 > labels["threat"][1]
    assert labels["insult"][1] >= 0.5
    assert labels["obscene"][2] >= 0.5


@pytest.mark.models
def test_the_same_texts_score_the_same_and_long_ones_do_not_fail(judge: ToxicityJudge) -> None:
    texts = ["", "you idiot " * 20_000, "x" * 200_000, "hello", "what a lovely day " * 30]
    first, second = judge.score(texts), judge.score(texts)
    for label in LABELS:
        assert first[label].tolist() == second[label].tolist()
    assert first["toxicity"][1] >= 0.5


@pytest.mark.models
def test_the_judge_says_which_weights_it_used(judge: ToxicityJudge, models: Path) -> None:
    assert judge.source.startswith("embedded")
    assert judge.version == load(Settings(models=models)).version


@pytest.mark.models
def test_assembling_twice_leaves_the_first_file_alone(models: Path) -> None:
    first = assemble(models)
    before = first.stat().st_mtime_ns
    assert assemble(models) == first
    assert first.name == CHECKPOINT
    assert first.stat().st_mtime_ns == before
    assert [entry.name for entry in first.parent.parent.iterdir()] == [first.parent.name]  # nothing half made is left


@pytest.mark.models
def test_our_checkpoint_given_as_a_path_judges_alike(judge: ToxicityJudge, models: Path) -> None:
    given = load(Settings(models=models, evaluations=Evaluations(toxicity=str(assemble(models)))))
    texts = ["you idiot", "good morning"]
    assert given.score(texts)["insult"].tolist() == judge.score(texts)["insult"].tolist()
    assert given.version.startswith("checkpoint-")
    assert given.source == f"checkpoint {CHECKPOINT}"


@pytest.mark.models
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("encoder_sha256", "is not the one that the toxicity adapter was trained on"),
        ("sha256", "not the file that its card"),
    ],
)
def test_weights_that_do_not_belong_together_are_refused(
    broken: str, message: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = json.loads((ADAPTER / "toxicity.json").read_bytes())
    (tmp_path / "toxicity.json").write_text(json.dumps({**card, broken: "0" * 64}))
    (tmp_path / "toxicity.safetensors").symlink_to(ADAPTER / "toxicity.safetensors")
    monkeypatch.setattr(judge_module, "ADAPTER", tmp_path)
    with pytest.raises(JudgeUnavailable, match=message):
        assemble(models)


@pytest.mark.models
def test_when_detoxifys_own_weights_cannot_be_had_ours_judge_and_say_so(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real: Callable[..., Any] = judge_module._detoxify

    def offline(*args: Any, **kwargs: Any) -> Any:
        if args:
            raise URLError("no route to host")
        return real(**kwargs)

    monkeypatch.setattr(judge_module, "_detoxify", offline)
    judge = load(Settings(models=models, evaluations=Evaluations(toxicity="original")))
    assert judge.source.startswith("embedded")
    assert "Detoxify's original cannot be downloaded" in judge.source
    assert judge.version.startswith("embedded-")
    assert "Detoxify's original cannot be downloaded" in caplog.text
