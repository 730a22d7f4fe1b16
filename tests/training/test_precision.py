"""`precision: auto` takes bfloat16 where the hardware has it, and what the job says is never overruled."""

import pytest
import torch

from llmray.job.training import Train
from llmray.training.attempt import Seat, with_precision


@pytest.mark.parametrize(
    ("instructions", "wanted", "settled"),
    [
        ({"avx2": True, "avx512_bf16": False}, "auto", "fp32"),
        ({"avx512_bf16": True}, "auto", "bf16"),
        ({"amx_bf16": True}, "auto", "bf16"),
        ({"neon": True, "bf16": True}, "auto", "bf16"),
        ({"avx2": True}, "bf16", "bf16"),
        ({"avx512_bf16": True}, "fp32", "fp32"),
    ],
)
def test_precision_follows_the_hardware_only_when_it_may(
    instructions: dict[str, bool], wanted: str, settled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    train = Train.model_validate({"precision": wanted})
    assert with_precision(train, Seat()).precision == settled
