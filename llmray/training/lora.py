"""Low-rank additions to a model's matrices, learned instead of its weights, through `peft`.

It does not know how they are learned.
"""

from importlib.util import find_spec
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from llmray.job.errors import JobError
from llmray.job.training import LoRA
from llmray.training.optim import blocks


def require_peft() -> None:
    """Raise `JobError` where `peft` is not installed."""
    if find_spec("peft") is None:
        raise JobError("train.lora: needs the package peft; install it with `pip install 'llmray[lora]'`")


def adapted(model: Any, options: LoRA) -> Any:
    """Put additions into a model and freeze the rest, but for a head that makes no text: it may be new.

    Gives what `merge_and_unload()` makes the model whole with.  Raises `JobError`.
    """
    from peft import LoraConfig, LoraModel  # an extra

    matrices = {name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    if missing := [t for t in options.targets or () if not any(n == t or n.endswith("." + t) for n in matrices)]:
        known = sorted({name.rpartition(".")[2] for name in matrices})
        raise JobError(f"train.lora.targets: no matrix is named {missing[0]}; there are {', '.join(known)}")
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # any number does
        lora_dropout=options.dropout,
        target_modules=list(options.targets or _in_blocks(model)),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    additions = LoraModel(model, config, "default")
    if model.get_output_embeddings() is None:
        for part in model.children():
            if part is not model.base_model:
                part.requires_grad_(True)
    return additions


def _in_blocks(model: nn.Module) -> list[str]:
    inner = {module for block in blocks(model) for module in block.modules()}
    return [n for n, module in model.named_modules() if module in inner and isinstance(module, (nn.Linear, Conv1D))]
