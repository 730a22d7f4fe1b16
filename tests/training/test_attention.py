"""Attention is chosen for speed, and changes nothing but that."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from llmray.job.task import CausalLM
from llmray.tasks.base import Tensors
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.tasks.language import numbered
from llmray.training.attention import CAUSAL, set_attention

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [7, 5, 9, 0, 0, 0]])
LABELS = torch.tensor([[5, 6, 7, 8, 9, 10], [7, 5, 9, -100, -100, -100]])
PADDED = {"input_ids": IDS, "labels": LABELS, "attention_mask": (LABELS != -100).long()}
PACKED = {"input_ids": IDS, "labels": LABELS, "documents": numbered([[2, 4], [3]], 6)}


def task(seq_len: int) -> CausalLanguageModel:
    return CausalLanguageModel(CausalLM(seq_len=seq_len), None)  # type: ignore[arg-type]


def models() -> list[PreTrainedModel]:
    torch.manual_seed(0)
    llama = LlamaConfig(vocab_size=12, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    return [GPT2LMHeadModel(GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=2)), LlamaForCausalLM(llama)]


@pytest.mark.parametrize("batch", [PADDED, PACKED], ids=["padded", "packed"])
def test_without_a_mask_the_loss_is_the_same(batch: Tensors) -> None:
    """Padding behind the text, and documents in one block, whose mask is their own."""
    for model in models():
        model.eval()
        losses = []
        for attention in ("eager", "sdpa", CAUSAL):
            model.set_attn_implementation(attention)
            losses.append(task(1024).loss(model, dict(batch))[0])
        assert torch.allclose(losses[0], losses[1], atol=1e-5)
        assert torch.allclose(losses[1], losses[2], atol=1e-5)


def test_short_sequences_on_a_cpu_are_read_plainly() -> None:
    model = models()[0]
    set_attention(model, task(512), CPU)
    assert model.config._attn_implementation == "eager"
    set_attention(model, task(513), CPU)
    assert model.config._attn_implementation == CAUSAL
    set_attention(model, task(512), torch.device("meta"))  # stands for what is no CPU
    assert model.config._attn_implementation == CAUSAL


def test_what_is_saved_does_not_tell(tmp_path: Path) -> None:
    model = models()[0]
    set_attention(model, task(1024), CPU)
    model.save_pretrained(tmp_path)
    assert CAUSAL not in (tmp_path / "config.json").read_text()
