"""Whether what was found can do what is asked: folder, config, weights and tokenizer against a task.

It does not load anything.  Every complaint says what was found and what helps.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_MASKED_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from llmray.job.errors import JobError, ModelError
from llmray.tasks.base import Task
from llmray.tasks.generating import positions

LENGTHS = ("seq_len", "max_length", "max_source_tokens", "max_target_tokens", "max_tokens")
"""Options of tasks that say how many tokens the model must reach."""

TOKENIZERS = ("tokenizer*", "vocab*", "spiece*", "sentencepiece*", "*.spm", "*.model")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def near(reference: str) -> str:
    """A hint at the folder that may have been meant; empty when none beside it is named alike."""
    parent = Path(reference).parent
    beside = [str(p) for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
    found = difflib.get_close_matches(reference, beside, 1, 0.4)
    return f"; did you mean {found[0]}?" if found else ""


def require_folder(reference: str) -> None:
    """Refuse a folder without a config or without weights in safetensors."""
    folder = Path(reference)
    if not folder.is_dir():
        return
    if not (folder / "config.json").exists():
        inside = next((p.parent for p in sorted(folder.glob("*/config.json"))), None)
        hint = f"; did you mean {inside}?" if inside else ""
        raise ModelError(f"{reference}: not a model folder: config.json is missing{hint}")
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(p.name for pattern in PICKLED for p in folder.glob(pattern))
    raise ModelError(
        f"{reference}: no weights in safetensors"
        + (f"; {', '.join(pickled[:3])}: pickled weights can run code and are refused; where you trust them, convert"
           " them once: `AutoModel….from_pretrained(folder).save_pretrained(new_folder)`" if pickled else "")
    )  # fmt: skip


def require_tokenizer(reference: str) -> None:
    """Refuse a folder without a tokenizer: `transformers` would make an empty one up."""
    folder = Path(reference)
    if folder.is_dir() and not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise ModelError(
            f"{reference}: no tokenizer there (tokenizer.json …); name a folder that has one as model.tokenizer"
        )


def require_task(reference: str, config: PreTrainedConfig, auto: Any, task: Task) -> None:
    """Refuse an architecture that cannot do the task."""
    if getattr(config, "auto_map", None):
        return  # brings its own code, which was asked for
    if type(config) not in auto._model_mapping:
        raise ModelError(f"{reference}: {_holds(config)}; a {config.model_type} model cannot do {task.name}")
    both_sides = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if task.auto_class == "AutoModelForCausalLM" and both_sides and not config.is_encoder_decoder:
        raise ModelError(f"{reference}: {_holds(config)}; it reads to both sides, so it cannot do {task.name}")
    if task.name == "captioning" and task.processor.image_processor is None:
        raise ModelError(f"{reference}: brings no image processor (preprocessor_config.json), so it sees no pictures")


def require_learnable(reference: str, config: PreTrainedConfig) -> None:
    """Refuse weights that are too coarse for a step of learning to change them."""
    if quantized := getattr(config, "quantization_config", None):
        told = quantized if isinstance(quantized, dict) else quantized.to_dict()
        method = told.get("quant_method", "says config.json")
        raise ModelError(
            f"{reference}: its weights are quantized ({method}), so they cannot be learned; give the model that they"
            " were made from, or turn them back once:"
            " `AutoModel….from_pretrained(folder).dequantize().save_pretrained(new_folder)`"
        )


def require_size(reference: str, config: PreTrainedConfig, task: Task) -> None:
    """Refuse a tokenizer with more tokens than the model's vocabulary, and a task longer than its positions."""
    text = config.get_text_config(decoder=True)
    known, tokenizer = getattr(text, "vocab_size", None), task.processor.tokenizer
    if known and len(tokenizer) > known:
        named = tokenizer.name_or_path or "the tokenizer"
        raise JobError(
            f"model.tokenizer: {named} has {len(tokenizer)} tokens, but the model {reference} knows {known} tokens;"
            " leave it out to use the model's own"
        )
    reach = positions(text)
    for key in LENGTHS:
        if reach and getattr(task.options, key, 0) > reach:
            length = getattr(task.options, key)
            raise JobError(f"task.{key}: {length} tokens, but the model {reference} has {reach} positions")


def require_weights(reference: str, model: PreTrainedModel, info: dict[str, Any], task: Task, finished: bool) -> None:
    """Refuse weights of other shapes than the config's, missing ones, NaN, and for answering a head never trained.

    Training may begin with a new head; then only the body must be whole, and classes may be others than before.
    """

    def inside(name: str) -> bool:
        own = model.base_model is model or name.startswith(f"{model.base_model_prefix}.")
        return own and not name.startswith("bert.pooler.")  # a part of a head, although in the body

    anew = task.name == "classification" and not finished
    if wrong := sorted(key for key in info["mismatched_keys"] if not anew or inside(key[0])):
        name, found, wanted = wrong[0]
        raise ModelError(
            f"{reference}: {len(wrong)} weights do not have the shapes that config.json says: {name} is"
            f" {tuple(found)}, should be {tuple(wanted)}"
        )
    missing = sorted(info["missing_keys"])
    if body := list(filter(inside, missing)):
        raise ModelError(f"{reference}: {_some(body)} missing from its weights; the folder is incomplete")
    if finished and missing:
        raise ModelError(
            f"{reference}: {_holds(model.config)}, whose head cannot answer {task.name} ({_some(missing)} missing);"
            " fine-tune it first"
        )
    if broken := [name for name, weight in model.named_parameters() if not _finite(weight)]:
        raise ModelError(
            f"{reference}: {_some(broken)} NaN or infinite in its weights; take a checkpoint from before its training"
            " diverged"
        )


def _finite(weight: torch.Tensor) -> bool:
    """Without a copy as large as the weight; quantized ones hold integers and are not looked at."""
    if weight.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16) or not weight.numel():
        return True
    return all(map(torch.isfinite, torch.aminmax(weight)))


def _holds(config: PreTrainedConfig) -> str:
    return f"holds {', '.join(getattr(config, 'architectures', None) or [config.model_type])}"


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    return f"{first} and {len(rest)} more are" if rest else f"{first} is"
