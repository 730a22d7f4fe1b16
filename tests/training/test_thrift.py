"""Activations computed twice and compiled models learn the same."""

import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from llmray.job.errors import ModelError
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.training.parallel import Learner
from llmray.training.thrift import compiled, recomputing

IDS = torch.arange(16).reshape(2, 8) % 13
BATCH = {"input_ids": IDS, "labels": IDS, "attention_mask": torch.ones_like(IDS)}


def learner(chunked: bool = False) -> Learner:
    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": 13, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**size, loss_type="ForCausalLM", embd_pdrop=0, resid_pdrop=0, attn_pdrop=0))
    return Learner(model, CausalLanguageModel(None, None, chunked_loss=chunked)).train()  # type: ignore[arg-type]


def slopes(made: Learner) -> list[Any]:
    loss, _ = made(BATCH)
    loss.backward()
    return [loss.detach(), *(p.grad for p in made.parameters())]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one, other, strict=True))


def test_blocks_are_computed_again_on_the_way_back() -> None:
    made, passes = learner(), []
    recomputing(made.model)
    made.model.transformer.h[0].ln_1.register_forward_hook(lambda *_: passes.append(1))  # type: ignore[union-attr]
    assert same(slopes(made), slopes(learner()))
    assert len(passes) == 2


def test_a_model_that_cannot_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GPT2LMHeadModel, "supports_gradient_checkpointing", False)
    with pytest.raises(ModelError, match=r"train\.activation_checkpointing: gpt2"):
        recomputing(learner().model)


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__path__[0], reason="torch.compile needs a path without spaces")
@pytest.mark.parametrize(("chunked", "in_blocks"), [(False, False), (True, False), (False, True)])
def test_a_compiled_model_learns_the_same(chunked: bool, in_blocks: bool) -> None:
    made = learner(chunked)
    compiled(made, in_blocks)
    assert same(slopes(made), slopes(learner(chunked)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelError, match=r"no-such-compiler.*apt install"):
        compiled(learner(), in_blocks=False)


def test_an_environment_that_torch_cannot_name_to_the_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__path__", ["/my projects/torch"])
    with pytest.raises(ModelError, match=r"train\.compile: .*/my projects/torch, whose path has a space"):
        compiled(learner(), in_blocks=False)


PAGES = """
import resource, torch
from llmray.training.thrift import keep_freed_memory

keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    torch.ones(32 << 20)
before = faults()
for _ in range(10):
    torch.ones(32 << 20)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_memory_that_was_freed_is_not_fetched_from_the_system_again() -> None:
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # of ten times 32,768 pages
