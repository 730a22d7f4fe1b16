"""The model of a step's time in `benchmarks/scaling.py`, in numbers one can check by hand."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_bytes_by_hand(scaling: ModuleType) -> None:
    """100 weights on 4 GPUs: 400 bytes of gradients, of which a ring moves 2 × 3/4."""
    assert scaling.ddp_bytes(100, 4) == 600
    assert scaling.fsdp_bytes(100, 4) == 600  # 3/4 of 2 × 200 gathered and 400 added up
    assert scaling.diloco_bytes(100, 4, 50) == 12
    assert scaling.ddp_bytes(100, 1) == scaling.fsdp_bytes(100, 1) == 0


def test_a_step_by_hand(scaling: ModuleType) -> None:
    """16 GPUs, 1,600 weights: 12,000 bytes a step over a link of 1,000 a second, 12 s; compute takes 9 s."""
    links = scaling.Links("slow", gpu=1e6, node=1000.0)
    found = scaling.steps_s(9.0, 1600, links, 16, 10)
    assert found["DDP"] == pytest.approx(9 + 12 - 6)
    assert found["FSDP2"] == pytest.approx(9 + 12 - 9)
    assert found["DiLoCo"] == pytest.approx(9 + 1.2)


def test_within_a_node_the_network_does_not_matter(scaling: ModuleType) -> None:
    links = scaling.Links("slow", gpu=1e6, node=1000.0)
    assert scaling.steps_s(9.0, 1600, links, 8, 10)["DDP"] == 9
