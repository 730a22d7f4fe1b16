"""Which attention a model trains with.

It does not know what is learned, nor of packing: a mask that is given is kept.
"""

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llmray.model.load import longest
from llmray.tasks.base import Task
from llmray.tasks.causal_lm import CausalLanguageModel

EAGER_TOKENS = 512
"""Up to this length plain attention trains faster on a CPU than torch's fused one, whose backward pass is slow there:
1.5 times at 64 to 128 tokens in bf16, 1.1 times at 512, half as fast at 1024."""
CAUSAL = "sdpa_causal"
"""Torch's fused attention, for which `transformers` makes no mask: padding on the right is behind all that a causal
model reads.  A mask rules flash attention out, and compiled models would get one even where nothing is padded."""
CAUSAL_MODELS = ("gpt2", "llama")
"""Kinds of models all of whose layers see all that came before."""

AttentionInterface.register(CAUSAL, sdpa_attention_forward)


def set_attention(model: PreTrainedModel, task: Task, device: torch.device) -> None:
    """Choose by what the model is for, its longest sequence and the device."""
    if device.type == "cpu" and longest(task) <= EAGER_TOKENS:
        model.set_attn_implementation("eager")
    elif isinstance(task, CausalLanguageModel) and model.config.model_type in CAUSAL_MODELS:
        model.set_attn_implementation(CAUSAL)
