"""A reference → model and processor, and back to a folder in Hugging Face layout.

It does not know how a model is trained or asked.  Weights are safetensors only: a pickle can run code.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import cached_file

from llmray.job.errors import JobError, LlmrayError, ModelError
from llmray.job.schema import Model
from llmray.model import fit, presets, registry
from llmray.model.hub import reach
from llmray.store import place
from llmray.tasks.base import Processor, Task

NEW = "new:"
CARD = "llmray.json"
PICTURES = "preprocessor_config.json"
GENERATION = "generation_config.json"
FORMS = "; give a folder in Hugging Face layout, a hub id, registry:NAME@alias or new:PRESET"


def section(reference: str) -> Model:
    """A job's `model` that says no more than where it is."""
    return Model.model_validate({"from": reference})


def resolve(reference: str, registry_root: str | None = None) -> str:
    """The folder that a `registry:NAME@alias` reference names, a local copy of a remote folder; others unchanged.

    Raises `StoreError` for an unknown model, `ModelError` for a folder that does not exist.
    """
    if not reference.strip():
        raise ModelError(f"model.from: is empty{FORMS}")
    if reference.startswith(registry.PREFIX):
        reference = registry.referred(reference, registry_root).folder
    if reference.startswith(NEW) or _is_hub_id(reference):
        return reference
    if place.is_local(reference):
        reference = str(Path(reference.removeprefix("file://")).expanduser())
    if not place.exists(reference):
        raise ModelError(f"{reference}: no such model folder{fit.near(reference) or FORMS}")
    folder = place.local_copy(reference)
    if folder.is_file():
        raise ModelError(f"{reference}: is a file; a model is a folder in Hugging Face layout")
    return str(folder)


def _is_hub_id(reference: str) -> bool:
    """`OWNER/NAME` or `NAME` that is no local path."""
    return (
        "://" not in reference
        and not place.exists(reference)
        and reference.count("/") <= 1
        and reference[0] not in "./~"
    )


def processor(model: Model, registry_root: str | None = None) -> Processor:
    """Tokenizer and, where the model sees pictures, image processor.  Raises `ModelError`, `JobError`."""
    source = resolve(model.tokenizer or model.from_, registry_root)
    if source.startswith(NEW):
        raise JobError(f"model.tokenizer: {model.from_} brings no tokenizer; give a folder or hub id that has one")
    fit.require_tokenizer(source)
    tokenizer = _loaded(AutoTokenizer, source, model, revision=None if model.tokenizer else model.revision)
    own = resolve(model.from_, registry_root)
    if own.startswith(NEW):
        preset = own.removeprefix(NEW)
        return Processor(tokenizer, presets.image_processor(preset) if preset.startswith("vit") else None)
    access = reach(own, model.revision)
    with Loading(own):
        pictures = cached_file(
            own, PICTURES, revision=model.revision, _raise_exceptions_for_missing_entries=False, **access
        )
    if pictures is None:
        return Processor(tokenizer)
    return Processor(tokenizer, _loaded(AutoImageProcessor, own, model, revision=model.revision, backend="pil"))


def _loaded(auto: Any, reference: str, model: Model, revision: str | None, **options: Any) -> Any:
    access = reach(reference, revision)
    with Loading(reference):
        return auto.from_pretrained(
            reference, revision=revision, trust_remote_code=model.trust_remote_code, **access, **options
        )


def build(
    model: Model,
    task: Task,
    registry_root: str | None = None,
    *,
    dtype: torch.dtype | str = torch.float32,
    finished: bool = False,
) -> PreTrainedModel:
    """Random weights for `new:` (from torch's seed), else the reference's weights under the task's head.

    A head that the reference lacks is random too, unless the model must be `finished`.  Raises `ModelError`.
    """
    auto: Any = getattr(transformers, task.auto_class)
    reference = resolve(model.from_, registry_root)
    if reference.startswith(NEW):
        config = presets.new_config(reference.removeprefix(NEW), task.processor.tokenizer, task.name, longest(task))
        task.configure(config)
        return _fresh(auto, config)
    config = _fitting(reference, model, task)
    built, info = _loaded(
        auto, reference, model, model.revision, config=config, dtype=dtype, use_safetensors=True,
        output_loading_info=True, ignore_mismatched_sizes=True,
    )  # fmt: skip
    fit.require_weights(reference, built, info, task, finished)
    return built


def require_fit(model: Model, task: Task) -> None:
    """Refuse, without building it, a model that cannot learn the task.  Raises `ModelError`, `JobError`."""
    if not model.from_.startswith(NEW):  # which is made to measure
        fit.require_learnable(model.from_, configured(model, task))


def configured(model: Model, task: Task) -> Any:
    """The config of a model that can do the task, with what the task decides of it.  Raises as `require_fit`."""
    return _fitting(model.from_, model, task)


def generation_config(folder: str, config: Any) -> GenerationConfig:
    """How a model generates unless told otherwise, without its weights."""
    if not Path(folder, GENERATION).exists():
        return GenerationConfig.from_model_config(config)
    with Loading(folder):
        return GenerationConfig.from_pretrained(folder)


def _fitting(reference: str, model: Model, task: Task) -> Any:
    fit.require_folder(reference)
    config = _loaded(AutoConfig, reference, model, model.revision)
    fit.require_task(reference, config, getattr(transformers, task.auto_class), task)
    fit.require_size(reference, config, task)
    task.configure(config)
    return config


def longest(task: Task) -> int:
    """Tokens of the longest sequence that a task's options allow."""
    return max(getattr(task.options, key, 0) for key in fit.LENGTHS)


def _fresh(auto: Any, config: Any) -> PreTrainedModel:
    if config.model_type == "vision-encoder-decoder":
        model = transformers.VisionEncoderDecoderModel(config=config)
        # As large as what a patch holds, so that from the first step on it matters where a patch is.
        torch.nn.init.normal_(model.encoder.embeddings.position_embeddings, std=0.5)
        return model
    model = auto.from_config(config)
    if config.model_type == "modernbert" and not config.tie_word_embeddings:
        # Far apart from the start: words that stand in the same places grow alike in pretraining, and what is
        # fine-tuned later could not tell them apart.  The norm that follows takes the scale away.
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=1.0)
    return model


class Quiet:
    """`transformers` without its progress bars and warnings."""

    def __enter__(self) -> None:
        self.verbosity, self.bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        transformers.logging.set_verbosity(self.verbosity)
        if self.bars:
            transformers.logging.enable_progress_bar()


class Loading(Quiet):
    """Translates what `transformers` raises on a folder or hub id that cannot be loaded; keeps it quiet meanwhile."""

    def __init__(self, reference: str) -> None:
        self.reference = reference

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, Exception) and not isinstance(error, (LlmrayError, MemoryError)):
            hint = "" if Path(self.reference).exists() else fit.near(self.reference)
            raise ModelError(f"{self.reference}: cannot be loaded: {_reason(error)}{hint}") from error


def _reason(error: Exception) -> str:
    """A foreign error's first line; its kind too where the line alone would say little."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, SafetensorError):
        return f"its weights are damaged or cut short ({lines[0]}); copy or download the folder again"
    if "contains custom code" in lines[0]:
        return "it brings its own code, which runs only with model.trust_remote_code: true; read that code first"
    return lines[0] if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {lines[0]}"


def save(model: PreTrainedModel, task: Task, folder: str) -> None:
    """Write weights (safetensors), config, tokenizer, image processor and the task's options to `folder`.

    A model that was there before is replaced whole; on local disks a reader sees the old one or the new one.  Raises
    `OSError` when the storage fails.
    """
    target = Path(folder.removeprefix("file://"))
    beside = target.parent if place.is_local(folder) else None
    if beside:
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".model-") as scratch:
        made = Path(scratch, "new")
        _write(model, task, made)
        if beside and (target / CARD).exists():
            target.rename(Path(scratch, "old"))
        if beside and not target.exists():
            made.rename(target)
        else:
            place.upload(made, folder)


def _write(model: PreTrainedModel, task: Task, folder: Path) -> None:
    with Quiet():
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:
            raise OSError(f"{folder}: {error}") from error
        task.processor.tokenizer.save_pretrained(folder)
        if task.processor.image_processor is not None:
            task.processor.image_processor.save_pretrained(folder)
    (folder / CARD).write_text(json.dumps({"task": task.options.model_dump(mode="json")}, indent=2))
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes for the owner only; a server may be another user


def card(folder: str) -> dict[str, Any]:
    """What `save` noted beside the weights: the task and its options; empty for other folders."""
    return note(folder, CARD)


def note(folder: str, name: str) -> dict[str, Any]:
    """A JSON object in a model folder; empty when it is not there.  Raises `ModelError` for anything else."""
    path = Path(folder, name)
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: should hold a JSON object, holds {type(found).__name__}")
    return found
