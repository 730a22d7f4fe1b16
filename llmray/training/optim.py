"""AdamW and its learning-rate schedule.

It does not know what is learned or where.
"""

import math
from collections.abc import Callable

import torch

from llmray.job.schema import Train

BETAS = (0.9, 0.98)
"""The second as RoBERTa's (https://arxiv.org/abs/1907.11692): at torch's 0.999 a run of a few hundred steps would end
before the average of squared gradients has settled."""


def optimizer(model: torch.nn.Module, train: Train) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves biases and norms (one-dimensional weights) alone."""
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=train.learning_rate, betas=BETAS, fused=True)


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
        if train.schedule == "linear":
            return left
        return 1.0 if train.schedule == "constant" else (1 - math.cos(math.pi * left)) / 2

    return factor
