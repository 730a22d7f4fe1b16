"""What a run takes and costs, before it starts."""

import pytest

from cluster.price import UTILISATION, cost, hours
from cluster.shape import Shape, shape
from cluster.spec import Cluster
from llmray.job.load import load
from llmray.job.schema import Job

ONE = Shape(parameters=1, layers=1, width=1, vocabulary=1, sides=1, length=1024, flops=989e6)


def job(*overrides: str) -> Job:
    tree = {
        "task": {"name": "causal_lm", "seq_len": 1024}, "model": {"from": "new:gpt2-mini"},
        "data": {"train": "builtin:shapes"}, "train": {"steps": 1_000_000, "batch_size": 36},
        "scale": {"workers": 2, "gpus_per_worker": 1},
    }  # fmt: skip
    return load(tree, overrides)


def spec(**workers: object) -> Cluster:
    nodes = {"gpu": "H100", "gpus": 1, "price": 3.0} | workers
    return Cluster.model_validate(
        {"name": "a", "provider": "kubernetes", "image": "x", "head": {"price": 0.5}, "workers": nodes}
    )


def test_hours_by_hand() -> None:
    # 10⁶ steps of 36 × 1,024 tokens, 989e6 FLOPs each, on two GPUs of 989e12 FLOP/s at most: 18,432 s at the peak.
    assert hours(job(), ONE, "NVIDIA H100 80GB HBM3") == pytest.approx(18_432 / 3600 / UTILISATION)
    assert hours(job("scale.workers=4"), ONE, "H100") == pytest.approx(9_216 / 3600 / UTILISATION)


@pytest.mark.parametrize("gpu", [None, "a GPU that nobody knows"])
def test_what_is_not_known_is_not_guessed(gpu: str | None) -> None:
    assert hours(job(), ONE, gpu) is None
    assert hours(job("train={epochs: 3, batch_size: 8}"), ONE, "H100") is None
    assert hours(job("scale.gpus_per_worker=0"), ONE, "H100") is None
    assert cost(job(), spec(price=None), 2.0) is None


def test_cost_by_hand() -> None:
    assert cost(job(), spec(), 2.0) == 2.0 * (0.5 + 2 * 3.0)
    assert cost(job("scale.workers=3"), spec(gpus=2), 2.0) == 2.0 * (0.5 + 2 * 3.0)


def test_a_real_shape_has_flops_where_they_are_counted() -> None:
    found = shape(job())
    assert found.flops
    assert found.flops > 6 * (found.parameters - 1024 * found.width - found.vocabulary * found.width)
    assert shape(job("task=translation", "model.from=new:t5-small")).flops is None
