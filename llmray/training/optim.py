"""Optimisers and schedules of the learning rate.

It does not know what is learned or where.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from llmray.job.errors import ModelError
from llmray.job.training import Train

BETAS = (0.9, 0.98)
"""The second as RoBERTa's (https://arxiv.org/abs/1907.11692): at torch's 0.999 a run of a few hundred steps would end
before the average of squared gradients has settled."""
SGD_MOMENTUM, MUON_MOMENTUM = 0.9, 0.95
DECAY_FACTOR, DECAY_SHARE = 0.1, 0.2


def optimizer(model: nn.Module, train: Train) -> torch.optim.Optimizer:
    """The job's optimiser; it decays matrices and leaves biases and norms (one-dimensional weights) alone.

    Raises `ModelError` where no weight is to be learned.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    if not learned:
        raise ModelError(
            "model.from: all weights of this model are frozen, so there is nothing to learn; give a model with weights"
            " that require gradients, or set train.lora, which adds some"
        )
    rate, momentum = train.learning_rate, train.momentum
    match train.optimizer:
        case "adamw":
            return torch.optim.AdamW(_groups(learned, train), lr=rate, betas=BETAS, fused=True)
        case "adam":
            return torch.optim.Adam(_groups(learned, train), lr=rate, betas=BETAS, fused=True)
        case "sgd":
            momentum = SGD_MOMENTUM if momentum is None else momentum
            return torch.optim.SGD(_groups(learned, train), lr=rate, momentum=momentum)
        case "adafactor":
            return torch.optim.Adafactor(_groups(learned, train), lr=rate)
        case "muon":
            inner = block_matrices(model)
            others = [p for p in learned if all(p is not matrix for matrix in inner)]
            parts: list[torch.optim.Optimizer] = []
            if inner:
                momentum = MUON_MOMENTUM if momentum is None else momentum
                decay, adjust = train.weight_decay, "match_rms_adamw"
                parts.append(torch.optim.Muon(inner, rate, decay, momentum, adjust_lr_fn=adjust))
            if others:  # of LoRA there are none
                parts.append(torch.optim.AdamW(_groups(others, train), lr=rate, betas=BETAS, fused=True))
            return Joined(*parts)


def _groups(weights: list[nn.Parameter], train: Train) -> list[dict[str, Any]]:
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def blocks(model: nn.Module) -> list[nn.Module]:
    """The layers that a model repeats: members of its outermost module lists."""
    found: list[nn.Module] = []
    for child in model.children():
        found += child if isinstance(child, nn.ModuleList) else blocks(child)
    return found


def block_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The learned matrices of a model's blocks, tables that are looked up rather than multiplied left out."""
    modules = [module for block in blocks(model) for module in block.modules() if not isinstance(module, nn.Embedding)]
    weights = [p for module in modules for p in module.parameters(recurse=False)]
    return list(dict.fromkeys(p for p in weights if p.ndim == 2 and p.requires_grad))


class Joined(torch.optim.Optimizer):
    """Optimisers of one model's weights as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return [group for part in self.parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


def schedule(train: Train, total_steps: int) -> Callable[[int], float]:
    """Steps already taken → share of the peak learning rate for the next one.

    Never 0, so that no step is wasted: step 0 of a warm-up of 4 has 1/4, the last step of a linear decay over 8
    has 1/8.
    """
    warm, length = train.warmup_steps, max(1, total_steps - train.warmup_steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        left = 1 - (step - warm) / length
        match train.schedule:
            case "constant":
                return 1.0
            case "linear":
                return left
            case "cosine":
                return (1 - math.cos(math.pi * left)) / 2
            case "inverse_sqrt":
                return math.sqrt(max(warm, 1) / (step + 1))
            case "step":
                assert train.decay_every  # the schema demands it
                return float((train.decay_factor or DECAY_FACTOR) ** ((step - warm) // train.decay_every))
            case "wsd":
                return min(1.0, left / (train.decay_share or DECAY_SHARE))

    return factor
