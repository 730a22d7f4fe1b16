"""What is saved is plain Hugging Face: `transformers` alone reads it back to the same numbers."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedModel

from llmray.model.load import card, save
from llmray.model.presets import FAMILIES_OF
from llmray.tasks import TASKS

FAMILIES = [(task, family) for task, families in FAMILIES_OF.items() for family in families]
WRITERS = ("causal_lm", "span_corruption", "translation", "captioning", "chat")


def batch(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    ids = torch.arange(10, 26).view(2, 8)
    if model.config.model_type == "vision-encoder-decoder":
        return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 96 * 96).view(2, 3, 96, 96), "labels": ids}
    if model.config.is_encoder_decoder:
        return {"input_ids": ids, "labels": ids}
    return {"input_ids": ids}


def numbers(model: PreTrainedModel) -> list[torch.Tensor]:
    with torch.inference_mode():
        out: Any = model(**batch(model))
    return [out[key] for key in ("logits", "start_logits", "end_logits") if key in out]


@pytest.mark.parametrize(("name", "family"), FAMILIES)
def test_plain_transformers_reads_it_back_equal(name: str, family: str, fresh: Any, saved: Any) -> None:
    task, model = fresh(name, f"{family}-tiny")
    folder = saved(name, family)
    auto = getattr(transformers, TASKS[name].auto_class)
    again, info = auto.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for before, after in zip(numbers(model), numbers(again.eval()), strict=True):
        assert torch.equal(before, after)
    text = "A large red circle."
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == task.processor.tokenizer(text)["input_ids"]


@pytest.mark.parametrize(("name", "family"), [pair for pair in FAMILIES if pair[0] in WRITERS])
def test_plain_generate_knows_where_to_begin_and_end(name: str, family: str, fresh: Any, saved: Any) -> None:
    task, model = fresh(name, f"{family}-tiny")
    again = getattr(transformers, TASKS[name].auto_class).from_pretrained(saved(name, family))
    known, tokenizer = again.generation_config, task.processor.tokenizer
    assert (known.eos_token_id, known.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    inputs = {key: value for key, value in batch(model).items() if key != "labels"}
    told = again.eval().generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(told, model.generate(**inputs, max_new_tokens=6, do_sample=False))
    if name not in ("causal_lm", "chat"):
        start = tokenizer.bos_token_id if name == "captioning" else tokenizer.pad_token_id
        assert known.decoder_start_token_id == start
        assert told[:, 0].tolist() == [start, start]


def test_labels_are_shifted_behind_the_start_token(fresh: Any) -> None:
    """A sequence model fed with labels sees the start token and then the labels but the last."""
    for name, preset in (("translation", "marian-tiny"), ("translation", "t5-tiny"), ("captioning", "vit-gpt2-tiny")):
        _, model = fresh(name, preset)
        given = batch(model)
        labels = given.pop("labels")
        start = torch.full((2, 1), model.config.decoder_start_token_id)
        with torch.inference_mode():
            by_labels = model(**given, labels=labels).logits
            by_hand = model(**given, decoder_input_ids=torch.cat([start, labels[:, :-1]], 1)).logits
        assert torch.allclose(by_labels, by_hand, atol=1e-6), preset


def test_the_image_processor_comes_along(fresh: Any, saved: Any) -> None:
    task, _ = fresh("captioning", "vit-gpt2-tiny")
    plain = AutoImageProcessor.from_pretrained(saved("captioning", "vit-gpt2"), backend="pil").to_dict()
    assert {k: v for k, v in plain.items() if v is not None} == {
        k: v for k, v in task.processor.image_processor.to_dict().items() if v is not None
    }


def test_the_card_holds_the_tasks_options(fresh: Any, tmp_path: Path) -> None:
    task, model = fresh("qa", "bert-tiny", max_length=64, stride=16)
    save(model, task, str(tmp_path / "model"))
    noted = card(str(tmp_path / "model"))["task"]
    assert (noted["name"], noted["max_length"], noted["stride"]) == ("qa", 64, 16)


def test_a_model_that_was_there_is_replaced_whole(fresh: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save(*reversed(fresh("qa", "bert-tiny")), str(folder))
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"left over")
    task, model = fresh("qa", "bert-tiny", seed=1)
    save(model, task, str(folder))
    assert not (folder / "model-00002-of-00002.safetensors").exists()
    again = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
    assert torch.equal(again.qa_outputs.weight, model.qa_outputs.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_files_of_others_in_the_folder_stay(fresh: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    save(*reversed(fresh("qa", "bert-tiny")), str(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "model.safetensors").exists()


def test_others_may_read_the_weights(saved: Any) -> None:
    assert Path(saved("qa", "bert"), "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_an_object_store_holds_it_too(fresh: Any) -> None:
    save(*reversed(fresh("qa", "bert-tiny")), "memory://models/qa/model")
    import fsspec

    fs = fsspec.filesystem("memory")
    assert json.loads(fs.cat("/models/qa/model/llmray.json"))["task"]["name"] == "qa"
    assert fs.exists("/models/qa/model/model.safetensors")


def test_a_full_disk_is_the_storage_s_fault(fresh: Any, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; what was saved before is whole."""
    task, model = fresh("qa", "bert-tiny")
    save(model, task, str(tmp_path / "model"))
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(model, task, str(tmp_path / "model"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
