"""Schedules checked by hand; which weights decay."""

import math

import pytest
import torch

from llmray.job.schema import Train
from llmray.training.optim import optimizer, schedule


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


def test_no_step_of_any_schedule_is_wasted() -> None:
    for name in ("constant", "linear", "cosine"):
        factor = schedule(Train(schedule=name, warmup_steps=3), 9)  # type: ignore[arg-type]
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
