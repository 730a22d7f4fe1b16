"""How much of a device's arithmetic a training uses: model FLOPs utilisation (https://arxiv.org/abs/2204.02311).

It does not know what is learned.  A device whose peak is not in the table has no utilisation, rather than a wrong one.
"""

import torch
from transformers import PreTrainedModel

from llmray.job.task import CausalLM, MaskedLM, TaskOptions

BF16_PEAKS = (
    *(("B200", 2250e12), ("H200", 989e12), ("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12)),
    *(("A100", 312e12), ("L40S", 362e12), ("L4", 121e12), ("A10G", 70e12)),
)
"""Part of a device's name → dense bfloat16 FLOP/s, from NVIDIA's data sheets; the first that fits counts."""


def peak(device: torch.device, precision: str) -> float | None:
    """FLOP/s of a device at a precision; None where it is not known."""
    if device.type != "cuda" or precision != "bf16":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    return next((flops for part, flops in BF16_PEAKS if part in name), None)


def per_token(model: PreTrainedModel, task: TaskOptions | None) -> float | None:
    """Forward and backward FLOPs for one token of a language model; None for other tasks, which count theirs otherwise.

    6 for each weight that multiplies (tables that are only looked up do not) and, for attention, 12 × layers × width ×
    length.
    """
    if not isinstance(task, (CausalLM, MaskedLM)):
        return None
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is table.weight
    weights = model.num_parameters(exclude_embeddings=True) + (head.weight.numel() if tied else 0)
    return 6.0 * weights + 12.0 * model.config.num_hidden_layers * model.config.hidden_size * task.seq_len
