"""The estimate of a worker's memory, against what real models, optimisers and passes hold."""

from dataclasses import replace

import pytest
import torch

from cluster.memory import _lasting, _passing, worker_gib
from cluster.shape import Shape, shape
from llmray.job.load import load
from llmray.job.schema import Job

ONE = Shape(parameters=1_000_000, layers=10, width=100, vocabulary=1000, sides=10_000, length=100)


def job(*overrides: str) -> Job:
    tree = {
        "task": {"name": "causal_lm", "seq_len": 64}, "model": {"from": "new:gpt2-mini"},
        "data": {"train": "builtin:shapes", "tokenizer": {"vocab_size": 2000}},
        "train": {"steps": 1, "batch_size": 8, "precision": "fp32", "chunked_loss": False},
    }  # fmt: skip
    return load(tree, overrides)


def test_weights_gradients_and_state_by_hand() -> None:
    assert _lasting(job(), ONE) == 16e6  # 4 of weights, 4 of gradients, 8 of AdamW's moments
    assert _lasting(job("train.optimizer=sgd"), ONE) == 12e6
    assert _lasting(job("train.lora={rank: 2}", "model.from=gpt2"), ONE) == 4e6 + 12 * 2 * 10_000
    assert _lasting(job("scale.workers=2"), ONE) == 20e6  # and 4 of what is exchanged
    assert _lasting(job("scale={workers: 2, parallel: fsdp}"), ONE) == 8e6 + 4 * 100_000
    assert _lasting(job("scale={workers: 2, parallel: local_sgd}"), ONE) == 24e6


def test_what_a_pass_keeps_by_hand() -> None:
    assert _passing(job(), ONE) == 68 * 800 * 100 * 10 + 12 * 800 * 1000
    assert _passing(job("train.precision=bf16"), ONE) == 34 * 800 * 100 * 10 + 12 * 800 * 1000
    assert _passing(job("train.accumulate=4"), ONE) == _passing(job(), ONE) / 4
    kept = 4 * 800 * 100 * 10 + 68 * 800 * 100  # what stands between blocks, and one block in full
    assert _passing(job("train.activation_checkpointing=true"), ONE) == kept + 12 * 800 * 1000


@pytest.mark.parametrize("task", ["causal_lm", "chat"])
def test_a_loss_in_chunks_never_holds_all_scores(task: str) -> None:
    wide = replace(ONE, vocabulary=10**7)
    whole, chunked = (_passing(job(f"task={task}", f"train.chunked_loss={how}"), wide) for how in ("false", "auto"))
    assert whole - chunked > 60e9


def test_against_a_real_model_in_training() -> None:
    """Lasting bytes are exact, those of a pass right within a factor of 1.5."""
    from transformers import AutoModelForCausalLM, GPT2Config

    found = shape(job())
    config = GPT2Config(vocab_size=2000, n_positions=512, n_embd=256, n_layer=4, n_head=4)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert (found.layers, found.width, found.vocabulary) == (4, 256, 2000)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    ids = torch.randint(0, 2000, (8, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids).loss
    passing = sum(size for address, size in kept.items() if address not in weights)
    loss.backward()
    optimizer.step()
    moments = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if v.ndim)
    lasting = moments + sum(2 * p.nbytes for p in model.parameters())
    positions = (found.parameters - model.num_parameters()) * 16  # the preset's are as many as the task needs
    assert _lasting(job(), found) == lasting + positions
    assert passing / 1.5 < _passing(job(), found) < passing * 1.5


@pytest.mark.parametrize(
    ("source", "task", "layers"),
    [("t5-small", "translation", 12), ("modernbert-tiny", "qa", 2), ("vit-gpt2-tiny", "captioning", 4)],
)
def test_every_kind_of_model_has_a_shape(source: str, task: str, layers: int) -> None:
    assert shape(job(f"model.from=new:{source}", f"task={task}", "train.chunked_loss=auto")).layers == layers


def test_seven_thousand_million_weights_take_what_they_must() -> None:
    large = job("model.from=new:llama-8b")
    found = shape(large)
    assert found.parameters == 6_995_972_096  # Llama 3's 8.03 thousand million, less 2 × 126,256 words of 4,096 numbers
    assert 16 * found.parameters / 2**30 < worker_gib(large, found) < 18 * found.parameters / 2**30
