"""Each way in which a model folder can be broken is named, with what helps."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmray.job.errors import JobError, ModelError
from llmray.job.load import load
from llmray.job.schema import Endpoint, Model
from llmray.model.load import build, processor
from llmray.model.predict import Predictor
from llmray.tasks import make
from llmray.tasks.base import Request
from llmray.training.plan import plan
from serve import replica


def config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def gone(pattern: str) -> Callable[[Path], object]:
    return lambda folder: [path.unlink() for path in folder.glob(pattern)]


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50_000])


def diverged(number: float) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["bert.encoder.layer.1.output.dense.weight"][3, 5] = number
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def moved(folder: Path) -> None:
    (folder / "model").mkdir()
    for path in folder.glob("*.*"):
        path.rename(folder / "model" / path.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (written("config.json", "{"), "config.json' is not a valid JSON file"),
        (written("config.json", "[]"), "spoiled: cannot be loaded"),
        (written("config.json", '{"model_type": "zzz"}'), "has model type `zzz`"),
        (gone("config.json"), "not a model folder: config.json is missing"),
        (gone("*.safetensors"), "no weights in safetensors$"),
        (pickled, r"pytorch_model.bin: pickled weights can run code and are refused; .*save_pretrained"),
        (cut, r"damaged or cut short .*; copy or download the folder again"),
        (written("model.safetensors", ""), "damaged or cut short"),
        (written("llmray.json", "{"), "llmray.json: not valid JSON"),
        (written("llmray.json", "[]"), "llmray.json: should hold a JSON object, holds list"),
        (diverged(math.nan), r"layer\.1\.output\.dense\.weight is NaN or infinite in its weights; take a checkpoint"),
        (diverged(-math.inf), r"layer\.1\.output\.dense\.weight is NaN or infinite"),
        (gone("llmray.json"), "does not say which task it was trained for; name it as `task`"),
        (written("version.json", "{"), "version.json: not valid JSON"),
        (gone("token*"), r"no tokenizer there .*model\.tokenizer"),
        (written("tokenizer.json", "{"), "spoiled: cannot be loaded"),
        (written("tokenizer.json", "{}"), "spoiled: cannot be loaded"),
        (config(num_hidden_layers=4), r"bert\.encoder\.layer\.2.* and 31 more are missing from its weights"),
        (config(hidden_size=64), r"do not have the shapes that config.json says: .* is \(128,\), should be \(64,\)"),
        (config(vocab_size=100), "tokens, but the model .* knows 100 tokens"),
        (config(hidden_size="wide"), "spoiled: cannot be loaded"),
    ],
)
def test_a_broken_folder_is_named(change: Callable[[Path], object], words: str, spoiled: Any) -> None:
    with pytest.raises((ModelError, JobError), match=words):
        Predictor.load(spoiled(change), device="cpu")


def test_a_folder_above_the_model_points_at_it(spoiled: Any, options: Any, saved: Any) -> None:
    folder = spoiled(moved)
    task = make(options("qa"), processor(Model.model_validate({"from": saved("qa", "bert")})))
    with pytest.raises(ModelError, match=rf"config.json is missing; did you mean {folder}/model\?"):
        build(Model.model_validate({"from": folder}), task)


def test_a_model_for_pictures_without_an_image_processor(spoiled: Any) -> None:
    with pytest.raises(ModelError, match=r"brings no image processor \(preprocessor_config.json\)"):
        Predictor.load(spoiled(gone("preprocessor_config.json"), "captioning", "vit-gpt2"), device="cpu")


def test_code_in_a_model_folder_does_not_run_unless_asked_for(spoiled: Any, tmp_path: Path) -> None:
    """Neither its own, nor what its config would have fetched, nor by a prompt on the terminal."""

    def trap(folder: Path) -> None:
        (folder / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        config(model_type="trap", auto_map={"AutoConfig": "trap.C", "AutoModelForQuestionAnswering": "trap.M"})(folder)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["trap.T", None]}}))

    with pytest.raises(ModelError, match="trust_remote_code"):
        Predictor.load(spoiled(trap), device="cpu")
    assert not (tmp_path / "ran").exists()


OWN = """
from transformers import BertConfig, BertForQuestionAnswering

class Config(BertConfig):
    model_type = "own"

class Model(BertForQuestionAnswering):
    config_class = Config
"""


def test_code_in_a_model_folder_runs_where_the_job_says_so(saved: Any, spoiled: Any) -> None:
    def own(folder: Path) -> None:
        (folder / "own.py").write_text(OWN)
        found = {"AutoConfig": "own.Config", "AutoModelForQuestionAnswering": "own.Model"}
        config(model_type="own", auto_map=found)(folder)

    folder, asked = spoiled(own), [Request({"question": "What is red?", "context": "The circle is red."}, {})]
    endpoint = Endpoint.model_validate({"model": folder, "task": {"name": "qa"}, "trust_remote_code": True})
    answers = Predictor.load(saved("qa", "bert"), device="cpu").predict(asked)
    assert replica.load(endpoint, folder).predict(asked) == answers


def test_quantized_weights_are_not_trained_and_no_worker_starts(spoiled: Any) -> None:
    folder = spoiled(config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}))
    job = {"task": "qa", "model": {"from": folder}, "data": {"train": "a.json"}, "train": {"steps": 1}}
    with pytest.raises(ModelError, match=r"quantized \(bitsandbytes\).*give the model that they were made from"):
        plan(load(job))


def test_a_head_that_was_never_trained_does_not_answer(saved: Any, spoiled: Any, options: Any) -> None:
    folder = spoiled(gone("llmray.json"), "masked_lm", "bert")
    with pytest.raises(ModelError, match=r"BertForMaskedLM, whose head cannot answer qa .*; fine-tune it first"):
        Predictor.load(folder, options("qa"), "cpu")


def test_another_task_than_it_was_trained_for(saved: Any, options: Any) -> None:
    with pytest.raises(ModelError, match="was trained for qa, not translation"):
        Predictor.load(saved("qa", "bert"), options("translation"), "cpu")


def test_options_that_do_not_fit_those_it_was_trained_with(saved: Any, options: Any) -> None:
    changed = type(options("qa")).model_construct(_fields_set={"name", "stride"}, name="qa", stride=300)
    with pytest.raises(ModelError, match=r"stride \(300\) must be at most half of max_length \(384\)"):
        Predictor.load(saved("qa", "bert"), changed, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there(saved: Any) -> None:
    with pytest.raises(ModelError, match="device cuda: torch finds no GPU here"):
        Predictor.load(saved("qa", "bert"), device="cuda")
