"""FLOPs of a token, counted by hand; peaks by name."""

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from llmray.job.task import CausalLM, Translation
from llmray.training import flops


def test_flops_of_a_token_are_six_a_weight_and_attention() -> None:
    """Width 4, one layer, 10 words, length 8: 12 × 4² weights in matrices, 13 × 4 biases and norms, 2 × 4 more in the
    last norm, a head of 10 × 4; attention 12 × 1 × 4 × 8."""
    model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=10, n_positions=8))
    assert flops.per_token(model, CausalLM(seq_len=8)) == 6 * (12 * 16 + 13 * 4 + 2 * 4 + 40) + 12 * 4 * 8
    assert flops.per_token(model, Translation()) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peaks_are_known_or_none(name: str, peak: float | None) -> None:
    assert flops.peak_of(name) == peak
