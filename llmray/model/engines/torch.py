"""The model as `transformers` runs it: any task, any device.  It does not know other forms of the model."""

from typing import Any

import torch

from llmray.job.schema import Model
from llmray.model import load
from llmray.tasks.base import Task


def opened(section: Model, task: Task, device: str) -> Any:
    """The weights in the precision they were saved in on a GPU, and in float32 on a CPU.  Raises `ModelError`."""
    dtype = torch.float32 if device == "cpu" else "auto"
    return load.build(section, task, dtype=dtype, finished=True).to(device).eval()
