"""What makes the same step cheaper: activations computed twice instead of kept, a model compiled, memory kept.

It does not know when either pays.
"""

import ctypes
import os
import shutil
from typing import Any

import torch

from llmray.job.errors import ModelError
from llmray.training.optim import blocks
from llmray.training.parallel import Learner

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""As glibc numbers them: https://man7.org/linux/man-pages/man3/mallopt.3.html."""


def keep_freed_memory() -> None:
    """Have what this process frees wait for its next step, where the C library is glibc.

    Else large blocks go back to the system at once, and each step gets them anew, page by page.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def recomputing(model: Any) -> None:
    """Keep only what enters each block, and compute the rest again on the way back.  Raises `ModelError`."""
    if not model.supports_gradient_checkpointing:
        raise ModelError(f"train.activation_checkpointing: {model.config.model_type} models cannot; set it to false")
    model.activation_checkpointing_enable()


def compiled(learner: Learner, in_blocks: bool) -> None:
    """Compile loss and model as one, or block by block where weights come block by block.  Raises `ModelError`."""
    compiler = os.environ.get("CXX", "g++")  # as torch looks for it
    if not shutil.which(compiler):
        raise ModelError(
            f"train.compile: torch.compile needs a C++ compiler, and there is no {compiler} on this machine"
            " (Debian: apt install g++); install one, or set train.compile to false"
        )
    if " " in torch.__path__[0]:
        raise ModelError(
            f"train.compile: torch.compile cannot name {torch.__path__[0]}, whose path has a space, to the compiler;"
            " install into a path without one, or set train.compile to false"
        )
    for module in blocks(learner.model) if in_blocks else [learner]:
        module.compile()
