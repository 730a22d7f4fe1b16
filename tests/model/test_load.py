"""Every preset of a small size is built, saved, and read back by plain transformers to the same logits."""

import json

import pytest
import torch
import transformers

from llmray.corpus import shapes
from llmray.corpus.record import Document
from llmray.corpus.tokenizer import train
from llmray.job.errors import JobError, ModelError, RequestError
from llmray.job.load import load as load_job
from llmray.job.schema import Model
from llmray.model import load, presets
from llmray.model.predict import Predictor
from llmray.tasks import TASKS, make
from llmray.tasks.base import Processor, Request

SENTINELS = TASKS["span_corruption"].special_tokens
TOKENIZER = train([d.text for d in shapes.records(Document, 0, "train", 0, 200)], 500, extra=SENTINELS)
PAIRS = [(task, family) for task, families in presets.FAMILIES_OF.items() for family in families]


def fresh(task_name: str, preset: str):
    pictures = presets.image_processor(preset) if preset.startswith("vit") else None
    job = load_job({"task": task_name})
    task = make(job.task, Processor(TOKENIZER, pictures))
    torch.manual_seed(0)
    return task, load.build(Model.model_validate({"from": f"new:{preset}"}), task).eval()


def logits(task, model):
    torch.manual_seed(1)
    with torch.inference_mode():
        if task.name == "captioning":
            out = model(pixel_values=torch.randn(2, 3, 96, 96), decoder_input_ids=torch.arange(5, 13).view(2, 4))
        elif model.config.is_encoder_decoder:
            ids = torch.arange(5, 13).view(2, 4)
            out = model(input_ids=ids, decoder_input_ids=ids)
        else:
            out = model(input_ids=torch.arange(5, 13).view(2, 4))
    return out.start_logits if task.name == "qa" else out.logits


@pytest.mark.parametrize(("task_name", "family"), PAIRS)
def test_saved_models_are_those_of_plain_transformers(tmp_path, task_name, family):
    task, model = fresh(task_name, f"{family}-tiny")
    load.save(model, task, str(tmp_path / "model"))
    again = getattr(transformers, task.auto_class).from_pretrained(tmp_path / "model").eval()
    assert torch.equal(logits(task, model), logits(task, again))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model").vocab_size == TOKENIZER.vocab_size


def test_seed_decides_random_weights():
    (_, one), (_, other) = fresh("causal_lm", "gpt2-tiny"), fresh("causal_lm", "gpt2-tiny")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_an_encoder_becomes_a_question_answerer_with_its_weights(tmp_path):
    task, encoder = fresh("masked_lm", "modernbert-tiny")
    load.save(encoder, task, str(tmp_path / "model"))
    qa = make(load_job({"task": "qa"}).task, task.processor)
    model = load.build(Model.model_validate({"from": str(tmp_path / "model")}), qa)
    kept = dict(encoder.model.named_parameters())
    assert all(torch.equal(kept[name], weight) for name, weight in model.model.named_parameters())


def test_predictor_from_a_folder_knows_its_task(tmp_path):
    task, model = fresh("causal_lm", "llama-tiny")
    load.save(model, task, str(tmp_path / "writer" / "model"))
    predictor = Predictor.load(str(tmp_path / "writer" / "model"))
    assert (predictor.name, predictor.version, predictor.task.name) == ("writer", "0", "causal_lm")
    request = Request({"text": "A large red"}, {"max_new_tokens": 8})
    whole = predictor.predict([request])[0]
    assert "".join(predictor.stream(request)) == whole["generated_text"]
    cut = predictor.stream(request)
    next(cut)
    cut.close()
    with pytest.raises(RequestError, match=r"parameters\.top_k"):
        predictor.stream(Request({"text": "A"}, {"top_k": -1}))
    with pytest.raises(ModelError, match="was trained for causal_lm, not qa"):
        Predictor.load(str(tmp_path / "writer" / "model"), load_job({"task": "qa"}).task)


@pytest.mark.parametrize(
    ("preset", "task_name", "words"),
    [
        ("gpt3-tiny", "causal_lm", "is no preset; allowed for causal_lm: gpt2-tiny"),
        ("bert-tiny", "causal_lm", "does not do causal_lm"),
        ("marian-tny", "translation", "did you mean new:marian-tiny?"),
    ],
)
def test_presets_that_do_not_fit(preset, task_name, words):
    with pytest.raises(JobError, match=r"model\.from") as caught:
        presets.new_config(preset, TOKENIZER, task_name)
    assert words in str(caught.value)


def folder_with(tmp_path, **files: bytes):
    for name, content in files.items():
        (tmp_path / name.replace("__", ".")).write_bytes(content)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "config.json is missing"),
        ({"config__json": b"{}", "pytorch_model__bin": b"x"}, "pickled weights can run code and are refused"),
        ({"config__json": b"{", "model__safetensors": b"x"}, "cannot be loaded"),
        (
            {"config__json": json.dumps({"model_type": "gpt2"}).encode(), "model__safetensors": b"cut"},
            "cannot be loaded",
        ),
    ],
)
def test_folders_that_hold_no_model(tmp_path, files, words):
    task, _ = fresh("causal_lm", "gpt2-tiny")
    with pytest.raises(ModelError) as caught:
        load.build(Model.model_validate({"from": folder_with(tmp_path, **files)}), task)
    assert words in str(caught.value)


def test_a_folder_that_is_not_there_suggests_a_neighbour(tmp_path):
    (tmp_path / "writer").mkdir()
    with pytest.raises(ModelError, match="did you mean"):
        load.resolve(str(tmp_path / "write"))
