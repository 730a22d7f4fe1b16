"""A reference → model and processor, and back to a folder in Hugging Face layout.

It does not know how a model is trained or asked.  Weights are safetensors only: a pickle can run code.
"""

import difflib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedModel

from llmray.job.errors import ModelError
from llmray.job.schema import Model
from llmray.model import presets, registry
from llmray.store import place
from llmray.tasks.base import Processor, Task

NEW = "new:"
REGISTRY = "registry:"
CARD = "llmray.json"
LENGTHS = ("seq_len", "max_length", "max_source_tokens", "max_target_tokens", "max_tokens")


def resolve(reference: str, registry_root: str | None = None) -> str:
    """The folder that a `registry:NAME@alias` reference names, a local copy of a remote folder; others unchanged.

    Raises `StoreError` for an unknown model, `ModelError` for a folder that does not exist.
    """
    if reference.startswith(REGISTRY):
        name, _, version = reference.removeprefix(REGISTRY).partition("@")
        reference = registry.find(registry_root or "registry", name, version or "champion").folder
    if reference.startswith(NEW) or _is_hub_id(reference):
        return reference
    if not place.exists(reference):
        raise ModelError(f"{reference}: no such model folder{_near(reference)}")
    return str(place.local_copy(reference))


def _is_hub_id(reference: str) -> bool:
    """`OWNER/NAME` or `NAME` that is no local path."""
    return (
        "://" not in reference
        and not place.exists(reference)
        and reference.count("/") <= 1
        and reference[0] not in "./~"
    )


def _near(reference: str) -> str:
    parent = Path(reference).parent
    beside = [str(p) for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
    near = difflib.get_close_matches(reference, beside, 1, 0.4)
    return f"; did you mean {near[0]}?" if near else ""


def processor(model: Model, registry_root: str | None = None) -> Processor:
    """Tokenizer and, where the model sees pictures, image processor.  Raises `ModelError`."""
    source = resolve(model.tokenizer or model.from_, registry_root)
    with Loading(source):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=model.trust_remote_code)
    if model.from_.startswith(f"{NEW}vit"):
        return Processor(tokenizer, presets.image_processor(model.from_.removeprefix(NEW)))
    own = resolve(model.from_, registry_root)
    if own.startswith(NEW) or not (Path(own) / "preprocessor_config.json").exists():
        return Processor(tokenizer)
    with Loading(own):
        return Processor(tokenizer, AutoImageProcessor.from_pretrained(own, use_fast=False))


def build(model: Model, task: Task, registry_root: str | None = None) -> PreTrainedModel:
    """Random weights for `new:` (from torch's seed), else the reference's weights under the task's head."""
    auto: Any = getattr(transformers, task.auto_class)
    reference = resolve(model.from_, registry_root)
    if reference.startswith(NEW):
        longest = max(getattr(task.options, key, 0) for key in LENGTHS)
        config = presets.new_config(reference.removeprefix(NEW), task.processor.tokenizer, task.name, longest)
        return _fresh(auto, config)
    _require_safetensors(reference)
    with Loading(reference):
        return auto.from_pretrained(
            reference, revision=model.revision, trust_remote_code=model.trust_remote_code, use_safetensors=True
        )


def _fresh(auto: Any, config: Any) -> PreTrainedModel:
    if config.model_type == "vision-encoder-decoder":
        model = transformers.VisionEncoderDecoderModel(config=config)
        # As large as what a patch holds, so that from the first step on it matters where a patch is.
        torch.nn.init.normal_(model.encoder.embeddings.position_embeddings, std=0.5)
        return model
    return auto.from_config(config)


def _require_safetensors(reference: str) -> None:
    folder = Path(reference)
    if not folder.is_dir():
        return
    if not (folder / "config.json").exists():
        raise ModelError(f"{reference}: not a model folder: config.json is missing")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{reference}: no weights in safetensors"
            + ("; pickled weights can run code and are refused: load them once in a place you trust and"
               " `model.save_pretrained(folder)`" if any(folder.glob("*.bin")) else "")
        )  # fmt: skip


class Loading:
    """Translates what `transformers` raises on a folder or hub id that cannot be loaded; keeps it quiet meanwhile."""

    def __init__(self, reference: str) -> None:
        self.reference = reference

    def __enter__(self) -> None:
        self.verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        transformers.logging.set_verbosity(self.verbosity)
        if isinstance(error, (OSError, ValueError, KeyError, RuntimeError, SafetensorError)):
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{self.reference}: cannot be loaded: {first}") from error


def save(model: PreTrainedModel, task: Task, folder: str) -> None:
    """Write weights (safetensors), config, tokenizer, image processor and the task's options to `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "model")
        transformers.logging.disable_progress_bar()
        model.save_pretrained(target)
        task.processor.tokenizer.save_pretrained(target)
        if task.processor.image_processor is not None:
            task.processor.image_processor.save_pretrained(target)
        (target / CARD).write_text(json.dumps({"task": task.options.model_dump(mode="json")}, indent=2))
        place.upload(target, folder)


def card(folder: str) -> dict[str, Any]:
    """What `save` noted beside the weights: the task and its options; empty for other folders."""
    path = Path(folder, CARD)
    return json.loads(path.read_text()) if path.exists() else {}
