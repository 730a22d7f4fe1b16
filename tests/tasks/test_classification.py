"""Texts get classes or numbers: names travel with the model, padding changes nothing, scores are the field's."""

from typing import Any

import pytest
import torch
import transformers

from llmray.job.errors import DataError, ModelError, RequestError
from llmray.job.load import load
from llmray.job.schema import Model
from llmray.job.task import Classification
from llmray.model.load import build, save
from llmray.model.predict import Predictor
from llmray.tasks import make
from llmray.tasks.base import Processor, Request
from llmray.tasks.metrics import accuracy, correlations, macro_f1

LABELS = ("column", "corner", "row")
ROWS = {"text": ["A red star.", "A small blue square is to the left of a star."], "label": ["row", "column"]}


def made(tokenizer: Any, preset: str = "bert-tiny", **options: Any) -> Any:
    task = make(load({"task": {"name": "classification", "labels": LABELS} | options}).task, Processor(tokenizer))
    torch.manual_seed(0)
    return task, build(Model.model_validate({"from": f"new:{preset}"}), task).eval()


def test_labels_become_the_numbers_that_the_config_names(tokenizer: Any) -> None:
    task, model = made(tokenizer)
    assert task.collate(task.encode(ROWS))["labels"].tolist() == [2, 0]
    assert model.config.id2label == {0: "column", 1: "corner", 2: "row"}
    assert model.config.label2id == {"column": 0, "corner": 1, "row": 2}
    with pytest.raises(DataError, match=r"label 'ring' is none of column, corner, row; name all .*task.labels"):
        task.encode({"text": ["a"], "label": ["ring"]})


def test_the_loss_is_the_sum_that_transformers_takes_the_mean_of(tokenizer: Any) -> None:
    for options in ({}, {"labels": (), "regression": True}):
        task, model = made(tokenizer, **options)
        rows = ROWS | ({"label": ["1.5", "-2"]} if options else {})
        batch = task.collate(task.encode(rows))
        with torch.no_grad():
            loss, count = task.loss(model, batch)
            assert int(count) == 2
            torch.testing.assert_close(loss / 2, model(**batch).loss)


@pytest.mark.parametrize("preset", ["bert-tiny", "roberta-tiny", "modernbert-tiny", "gpt2-tiny", "llama-tiny"])
def test_padding_changes_no_class(tokenizer: Any, preset: str) -> None:
    task, model = made(tokenizer, preset)
    asked = [Request({"text": text}, {}) for text in [*ROWS["text"], "star " * 40]]
    together = task.answer(model, asked)
    for request, found in zip(asked, together, strict=True):
        [alone] = task.answer(model, [request])
        for one, other in zip(alone["candidates"], found["candidates"], strict=True):
            assert one["label"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
    scores = [c["score"] for c in together[0]["candidates"]]
    assert sum(scores) == pytest.approx(1)
    assert scores == sorted(scores, reverse=True)


def test_a_decoder_without_padding_reads_the_last_token(tokenizer: Any) -> None:
    """As the published GPT-2 is: no padding token, neither in its tokenizer nor in its config."""
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")
    task, model = made(bare, "gpt2-tiny")
    short, long = (Request({"text": text}, {}) for text in ("a star", "a star is to the left of a red circle"))
    [alone] = task.answer(model, [short])
    beside = task.answer(model, [long, short])[1]
    assert [c["score"] for c in alone["candidates"]] == pytest.approx([c["score"] for c in beside["candidates"]])


def test_parameters_of_a_request(tokenizer: Any) -> None:
    task, model = made(tokenizer)

    def scores(**parameters: Any) -> list[float]:
        [answer] = task.answer(model, [Request({"text": "a star"}, parameters)])
        return [c["score"] for c in answer["candidates"]]

    logits = torch.tensor(scores(function_to_apply="none"))
    assert scores() == pytest.approx(logits.softmax(0).tolist())
    assert scores(function_to_apply="sigmoid") == pytest.approx(logits.sigmoid().tolist())
    assert scores(top_k=1) == scores()[:1]
    assert scores(top_k=9) == scores()
    bad = task.answer(model, [Request({"text": " "}, {}), Request({"text": "a"}, {"top_k": 0})])
    assert ["the text is empty" in str(bad[0]), "parameters.top_k" in str(bad[1])] == [True, True]
    assert all(isinstance(error, RequestError) for error in bad)


def test_plain_transformers_tells_the_same_names_and_scores(tokenizer: Any, tmp_path: Any) -> None:
    task, model = made(tokenizer)
    save(model, task, str(tmp_path / "model"))
    plain = transformers.pipeline("text-classification", str(tmp_path / "model"), device="cpu", top_k=None)
    [ours] = Predictor.load(str(tmp_path / "model"), device="cpu").predict([Request({"text": "a red star"}, {})])
    [told] = plain(["a red star"])
    assert [c["label"] for c in ours["candidates"]] == [c["label"] for c in told]
    assert [c["score"] for c in ours["candidates"]] == pytest.approx([c["score"] for c in told])


def test_other_classes_than_before_get_a_new_head_in_training_only(tokenizer: Any, tmp_path: Any) -> None:
    task, model = made(tokenizer)
    save(model, task, str(tmp_path / "model"))
    section = Model.model_validate({"from": str(tmp_path / "model")})
    two = make(Classification(labels=("good", "bad")), Processor(tokenizer))
    again = build(section, two)
    assert again.classifier.out_features == 2
    assert torch.equal(again.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)
    with pytest.raises(ModelError, match=r"do not have the shapes that config.json says: classifier"):
        build(section, two, finished=True)


def test_a_pretrained_encoder_gets_a_head(tokenizer: Any, asked: Any, tmp_path: Any) -> None:
    """BERT's pooler is no part of a masked language model, but of a classifier."""
    masked, encoder = asked("masked_lm")
    save(encoder, masked, str(tmp_path / "encoder"))
    task, _ = made(tokenizer)
    model = build(Model.model_validate({"from": str(tmp_path / "encoder")}), task)
    assert torch.equal(
        model.bert.encoder.layer[1].output.dense.weight, encoder.bert.encoder.layer[1].output.dense.weight
    )
    with pytest.raises(ModelError, match="whose head cannot answer classification"):
        build(Model.model_validate({"from": str(tmp_path / "encoder")}), task, finished=True)


def test_numbers_are_told_as_they_are(tokenizer: Any) -> None:
    task, model = made(tokenizer, labels=(), regression=True)
    [answer] = task.answer(model, [Request({"text": "a star"}, {})])
    [measured] = task.measure(model, {"text": ["a star"], "label": ["2.5"]})
    assert answer["candidates"] == [{"label": "value", "score": pytest.approx(measured["predicted"], abs=1e-6)}]
    assert measured["label"] == 2.5
    with pytest.raises(DataError, match=r"label 'row' is no number; task.regression learns numbers"):
        task.encode(ROWS)
    assert task.headline == "pearson"


def test_scores_by_hand() -> None:
    found, labels = ["a", "a", "b", "c"], ["a", "b", "b", "b"]
    assert accuracy(found, labels) == 0.5
    # a: 1 right of 2 told, 1 there → 2/3; b: 1 of 1 told, 3 there → 1/2; c: 0
    assert macro_f1(found, labels) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # 1 2 3 against 1 2 9: ranks agree; covariance 8/3, deviations √(2/3) and √(114/9)
    told = correlations([1.0, 2.0, 3.0], [1.0, 2.0, 9.0])
    assert told["spearman"] == pytest.approx(1)
    assert told["pearson"] == pytest.approx((8 / 3) / ((2 / 3) ** 0.5 * (114 / 9) ** 0.5))
    assert correlations([1.0, 1.0], [1.0, 2.0]) == {"pearson": 0.0, "spearman": 0.0}


def test_baselines_by_hand(tokenizer: Any) -> None:
    task, _ = made(tokenizer)
    train, held_out = {"label": ["row", "row", "column"]}, {"label": ["row", "row", "column", "corner"]}
    assert task.baseline(train, held_out) == {"accuracy": 50.0, "f1": pytest.approx(100 * (2 / 3) / 3)}
    numbers, _ = made(tokenizer, labels=(), regression=True)
    told = numbers.baseline({"label": ["1", "3"]}, {"label": ["2", "4"]})
    assert told == {"pearson": 0.0, "spearman": 0.0, "mse": 2.0}
