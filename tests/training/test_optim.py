"""Schedules checked by hand; which weights decay; what each optimiser does in a first step."""

import copy
import math
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, GPT2Config, GPT2LMHeadModel

from llmray.job.errors import ModelError
from llmray.job.training import Train
from llmray.training.optim import Joined, block_matrices, optimizer, schedule


def test_linear_decay_after_warm_up() -> None:
    factor = schedule(Train(schedule="linear", warmup_steps=2), 10)
    assert [factor(step) for step in range(10)] == [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]


def test_constant_stays() -> None:
    factor = schedule(Train(schedule="constant", warmup_steps=4), 8)
    assert [factor(step) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_cosine_is_one_at_first_half_in_the_middle_and_never_zero() -> None:
    factor = schedule(Train(schedule="cosine"), 8)
    assert factor(0) == 1
    assert factor(4) == pytest.approx(0.5)
    assert factor(7) == pytest.approx((1 - math.cos(math.pi / 8)) / 2)
    assert factor(7) > 0


def test_inverse_root_goes_on_from_warm_up() -> None:
    factor = schedule(Train(schedule="inverse_sqrt", warmup_steps=4), 100)
    assert [factor(step) for step in (0, 3, 15, 63)] == [1 / 4, 1, 1 / 2, 1 / 4]
    assert schedule(Train(schedule="inverse_sqrt"), 100)(3) == 1 / 2


def test_step_drops_every_so_often_after_warm_up() -> None:
    factor = schedule(Train(schedule="step", warmup_steps=1, decay_every=2, decay_factor=0.5), 7)
    assert [factor(step) for step in range(7)] == [1, 1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 4]
    assert schedule(Train(schedule="step", decay_every=2), 7)(2) == 0.1


def test_wsd_warms_up_stays_and_decays_over_its_share() -> None:
    factor = schedule(Train(schedule="wsd", warmup_steps=2, decay_share=0.5), 10)  # the last 4 of 8 steps
    assert [factor(step) for step in range(10)] == [1 / 2, 1, 1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]
    assert schedule(Train(schedule="wsd"), 10)(9) == pytest.approx(1 / 2)


def test_no_step_of_any_schedule_is_wasted() -> None:
    for name in ("constant", "linear", "cosine", "inverse_sqrt", "step", "wsd"):
        every = {"decay_every": 2} if name == "step" else {}
        factor = schedule(Train.model_validate({"schedule": name, "warmup_steps": 3} | every), 9)
        assert all(0 < factor(step) <= 1 for step in range(9))


def test_biases_and_norms_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    decayed, spared = optimizer(model, Train(weight_decay=0.1)).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)]
    assert decayed["weight_decay"] == 0.1
    assert [tuple(p.shape) for p in spared["params"]] == [(4,), (4,), (4,)]
    assert spared["weight_decay"] == 0


def test_frozen_weights_are_left_out() -> None:
    model = torch.nn.Linear(3, 4)
    model.bias.requires_grad_(False)
    assert [len(group["params"]) for group in optimizer(model, Train()).param_groups] == [1]


def test_a_model_without_a_weight_to_learn_is_refused() -> None:
    for name in ("adamw", "adam", "sgd", "adafactor", "muon"):
        train = Train.model_validate({"optimizer": name})
        with pytest.raises(ModelError, match=r"all weights .* are frozen.*; give a model .*, or set train\.lora"):
            optimizer(torch.nn.Linear(3, 4).requires_grad_(False), train)


@pytest.mark.parametrize("name", ["adamw", "adam", "muon"])
def test_adam_steps_in_one_pass_over_the_weights(name: str) -> None:
    chosen = optimizer(writer(), Train.model_validate({"optimizer": name}))
    *_, part = chosen.parts if isinstance(chosen, Joined) else (chosen,)
    assert isinstance(part, torch.optim.Adam)
    assert part.defaults["fused"]
    assert part.defaults["decoupled_weight_decay"] == (name != "adam")


def stepped(slope: float, steps: int = 1, **keys: Any) -> torch.Tensor:
    """A 2 × 2 matrix of ones after steps with the same slope everywhere."""
    model = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.ones_(model.weight)
    chosen = optimizer(model, Train(**{"learning_rate": 0.1, "weight_decay": 0.0} | keys))
    for _ in range(steps):
        model.weight.grad = torch.full((2, 2), slope)
        chosen.step()
    return model.weight.detach()


def all_are(weight: torch.Tensor, value: float) -> bool:
    return torch.allclose(weight, torch.full_like(weight, value), atol=1e-5)


def test_sgd_by_hand() -> None:
    assert all_are(stepped(2.0, optimizer="sgd"), 1 - 0.1 * 2)
    assert all_are(stepped(2.0, 2, optimizer="sgd"), 1 - 0.1 * (2 + 2 + 0.9 * 2))
    assert all_are(stepped(2.0, 2, optimizer="sgd", momentum=0.0), 1 - 0.1 * 4)
    assert all_are(stepped(2.0, optimizer="sgd", weight_decay=0.5), 1 - 0.1 * (2 + 0.5))


def test_adam_by_hand() -> None:
    """The first step is the sign; AdamW takes the decay off the weight, Adam adds it to the slope."""
    assert all_are(stepped(2.0), 1 - 0.1)
    assert all_are(stepped(2.0, weight_decay=0.5), 1 - 0.1 * 0.5 - 0.1)
    assert all_are(stepped(-2.0, optimizer="adam", weight_decay=1.0), 1 + 0.1)
    assert all_are(stepped(-2.0, optimizer="adam", weight_decay=4.0), 1 - 0.1)


def test_adafactor_by_hand() -> None:
    """A first step has second moments equal to the squared slope, so it is the sign, times the weights' own size 1."""
    assert all_are(stepped(2.0, optimizer="adafactor"), 1 - 0.1)


def writer() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=13, n_embd=8, n_layer=2, n_head=2, n_positions=16))


def test_muon_learns_the_matrices_of_blocks_and_adamw_the_rest() -> None:
    model = writer()
    names = {id(p): name.removeprefix("transformer.") for name, p in model.named_parameters()}
    found = [names[id(p)] for p in block_matrices(model)]
    each = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert found == [f"h.{layer}.{matrix}.weight" for layer in (0, 1) for matrix in each]
    groups = optimizer(model, Train(optimizer="muon")).param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert [names[id(p)] for p in groups[1]["params"]] == ["wte.weight", "wpe.weight"]  # the head is tied to them


def test_a_new_head_is_none_of_the_blocks() -> None:
    model = BertForQuestionAnswering(
        BertConfig(vocab_size=13, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    )
    inner = {id(p) for p in block_matrices(model)}
    assert id(model.qa_outputs.weight) not in inner
    assert len(inner) == 6


def test_muon_makes_every_direction_of_a_step_alike() -> None:
    """A slope of singular values 100 and 1 becomes a step whose values are alike, 0.2 × √8 times the rate in size."""
    model = writer()
    matrix = model.transformer.h[0].attn.c_proj.weight
    before = matrix.detach().clone()
    chosen = optimizer(model, Train(optimizer="muon", learning_rate=0.1, weight_decay=0.0))
    left, right = (torch.linalg.qr(torch.randn(8, 8))[0] for _ in range(2))
    matrix.grad = left @ torch.diag(torch.tensor([100.0] + [1.0] * 7)) @ right
    chosen.step()
    values = torch.linalg.svdvals(before - matrix.detach()) / (0.1 * 0.2 * math.sqrt(8))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_joined_optimisers_are_kept_and_taken_up_as_one() -> None:
    train = Train(optimizer="muon")
    ids = torch.arange(8)[None]

    def step(model: GPT2LMHeadModel, chosen: torch.optim.Optimizer) -> None:
        model(ids, labels=ids).loss.backward()
        chosen.step()
        chosen.zero_grad()
        assert all(p.grad is None for p in model.parameters())

    model, other = writer().eval(), writer().eval()
    chosen = optimizer(model, train)
    step(model, chosen)
    other.load_state_dict(model.state_dict())
    again = optimizer(other, train)
    again.load_state_dict(copy.deepcopy(chosen.state_dict()))
    step(model, chosen)
    step(other, again)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
