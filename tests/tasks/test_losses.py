"""Losses in chunks and smoothed equal torch's own, in value and gradient."""

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from llmray.corpus import shapes
from llmray.job.errors import ModelError
from llmray.tasks.base import Tensors
from llmray.tasks.causal_lm import PLAIN_HEADS, CausalLanguageModel
from llmray.tasks.losses import CHUNK, chunked_cross_entropy, evenly
from llmray.tasks.masked_lm import MaskedLanguageModel


def test_chunked_by_hand() -> None:
    """Scores (0, ln 3) say 1/4 and 3/4; the third place is no target."""
    hidden = torch.tensor([[1.0], [1.0], [5.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    loss = chunked_cross_entropy(hidden, weight, torch.tensor([0, 1, -100]), chunk=2)
    assert loss.item() == pytest.approx(math.log(4) + math.log(4 / 3), abs=1e-6)
    loss.backward()
    # The softmax less the target: (1/4 - 1, 3/4) at the first place, (1/4, 3/4 - 1) at the second.
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == pytest.approx([-0.5, 0.5], abs=1e-6)
    assert hidden.grad is not None
    assert hidden.grad.flatten().tolist() == pytest.approx([0.75 * math.log(3), -0.25 * math.log(3), 0], abs=1e-6)


def drawn() -> tuple[list[torch.Tensor], torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 11, (10,), generator=draw)
    labels[3] = -100
    return [torch.randn(shape, generator=draw).requires_grad_() for shape in ((10, 4), (11, 4), (11,))], labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 4, 10, 64])
def test_chunked_equals_plain(chunk: int, smoothing: float) -> None:
    plain, labels = drawn()
    wanted = cross_entropy(linear(*plain), labels, reduction="sum", label_smoothing=smoothing)
    (3 * wanted).backward()
    ours, _ = drawn()
    hidden, weight, bias = ours
    found = chunked_cross_entropy(hidden, weight, labels, bias, smoothing, chunk)
    (3 * found).backward()
    assert torch.allclose(found, wanted, rtol=1e-6)
    for one, other in zip(ours, plain, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_chunked_skips_what_is_frozen_and_gives_no_gradient_unasked() -> None:
    (hidden, weight, bias), labels = drawn()
    weight.requires_grad_(False)
    chunked_cross_entropy(hidden, weight, labels, bias).backward()
    assert hidden.grad is not None
    assert weight.grad is None
    with torch.no_grad():
        assert not chunked_cross_entropy(hidden, weight, labels).requires_grad


def test_evenly_is_the_cross_entropy_against_every_class_alike() -> None:
    logits, labels = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)]]]), torch.tensor([[-100, 0]])
    assert evenly(logits, labels).item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, abs=1e-6)
    assert evenly(logits[0, 1:], labels).item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, abs=1e-6)


class Largest(TorchDispatchMode):
    """Knows the size of the largest tensor that was made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize("chunked", [False, True])
def test_in_chunks_the_scores_of_all_places_never_exist(chunked: bool) -> None:
    """2,100 targets of 1,000 words, there and back: whole, all their scores are held at once."""
    rows, words = 300, 1000
    task = CausalLanguageModel(None, None, chunked_loss=chunked)  # type: ignore[arg-type]
    ids = torch.randint(0, words, (rows, 8), generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        loss, _ = task.loss(gpt2(words).train(), {"input_ids": ids, "labels": ids})
        loss.backward()
    assert (largest.numbers == CHUNK * words) if chunked else (largest.numbers >= rows * 7 * words)


def gpt2(words: int = 13) -> Any:
    torch.manual_seed(0)
    size = {"vocab_size": words, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**size, loss_type="ForCausalLM", embd_pdrop=0, resid_pdrop=0, attn_pdrop=0))


def blocks() -> Tensors:
    ids = torch.randint(1, 13, (3, 8), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, 4:] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def tiny(kind: str) -> Any:
    """A model of a kind with random weights, large enough for a cap on scores to show."""
    torch.manual_seed(0)
    layer = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    size = {"vocab_size": 13, "intermediate_size": 16, "max_position_embeddings": 16, "initializer_range": 1.0}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    no_dropout = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0} if kind == "gpt2" else {}
    config = AutoConfig.for_model(kind, loss_type="ForCausalLM", **layer, **size, **ends, **no_dropout)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", PLAIN_HEADS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_every_kind_that_is_trusted_to_learns_the_same_in_chunks(kind: str, smoothing: float) -> None:
    slopes = []
    for chunked in (False, True):
        task = CausalLanguageModel(None, None, label_smoothing=smoothing, chunked_loss=chunked)  # type: ignore[arg-type]
        model = tiny(kind).train()
        loss, count = task.loss(model, blocks())
        loss.backward()
        assert count == 2 * 7 + 3
        assert all(p.grad is not None for p in model.parameters())
        slopes.append([loss.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_smoothing_is_for_learning_only() -> None:
    smooth, plain = (CausalLanguageModel(None, None, label_smoothing=s) for s in (0.2, 0.0))  # type: ignore[arg-type]
    model = gpt2().eval()
    assert smooth.loss(model, blocks())[0] == plain.loss(model, blocks())[0]
    model.train()
    logits, labels = model(blocks()["input_ids"]).logits[:, :-1].flatten(0, 1), blocks()["labels"][:, 1:].flatten()
    wanted = cross_entropy(logits, labels, reduction="sum", label_smoothing=0.2)
    assert torch.allclose(smooth.loss(model, blocks())[0], wanted, rtol=1e-5)


def test_an_encoder_that_scores_only_targets_is_smoothed_alike() -> None:
    torch.manual_seed(0)
    size = {
        "vocab_size": 13,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ends = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    model = ModernBertForMaskedLM(ModernBertConfig(**size, **ends, sparse_prediction=True)).train()
    task = MaskedLanguageModel(None, None, label_smoothing=0.2)  # type: ignore[arg-type]
    batch = blocks() | {"labels": torch.where(torch.arange(8) % 3 == 0, blocks()["input_ids"], -100)}
    model.sparse_prediction = False
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.flatten(0, 1)
    wanted = cross_entropy(logits, batch["labels"].flatten(), reduction="sum", label_smoothing=0.2)
    model.sparse_prediction = True
    assert torch.allclose(task.loss(model, batch)[0], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "preset", "options"),
    [
        ("classification", "bert-tiny", {"labels": ["column", "corner", "row"]}),
        ("classification", "gpt2-tiny", {"labels": ["column", "corner", "row"]}),
        ("translation", "marian-tiny", {}),
        ("translation", "t5-tiny", {}),
        ("captioning", "vit-gpt2-tiny", {}),
        ("masked_lm", "roberta-tiny", {"seq_len": 32}),
    ],
)
def test_every_task_with_classes_is_smoothed(name: str, preset: str, options: dict[str, Any], asked: Any) -> None:
    task, model = asked(name, preset, **options)
    rows = list(shapes.records(task.record, 0, "train", 0, 6))
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(rows[0])}
    batch = task.collate(task.encode(columns))
    task.label_smoothing = 0.2
    for learns, smoothing in ((True, 0.2), (False, 0.0)):
        logits, labels = model.train(learns)(**batch).logits.flatten(0, -2), batch["labels"].flatten()
        wanted = cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
        assert torch.allclose(task.loss(model, batch)[0], wanted, rtol=1e-5)


def test_chunks_are_taken_where_scores_would_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    task = CausalLanguageModel(None, None)  # type: ignore[arg-type]
    labels = blocks()["labels"][:, 1:]
    for most, chunked in ((3 * 7 * 13 * 4, False), (3 * 7 * 13 * 4 - 1, True)):
        monkeypatch.setattr("llmray.tasks.causal_lm.CHUNKED_FROM_BYTES", most)
        assert task._in_chunks(gpt2(), labels) is chunked


def test_a_head_that_may_do_more_is_refused() -> None:
    task = CausalLanguageModel(None, None, chunked_loss=True)  # type: ignore[arg-type]
    model = gpt2()
    model.config.model_type = "gemma2"
    with pytest.raises(ModelError, match=r"train\.chunked_loss: gemma2.*gpt2"):
        task.loss(model, blocks())
