"""Tokens per second of 1 and 2 real workers here, and a model of a step's time on 8 to 1,024 GPUs, as Markdown tables.

    python benchmarks/scaling.py [--runs 3] [--steps 60] [--compute_s 0.5] [--weights 1.24e9] [--no-runs] ...

Real: `llmray train` on Ray Train, each worker one thread, the same batch for all workers together.  Model: a step's
compute on one GPU, which you measure (`benchmarks/gpu.py` prints it) and give as `--compute_s`, and the bytes that
`training/parallel.py` says move.  Some 4 minutes with the runs, none without.
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import llmray

GPUS = (8, 64, 256, 1024)
PER_NODE = 8


@dataclass(frozen=True)
class Links:
    """Bytes per second that a GPU sends, and receives, at once within its node, and that a node does."""

    name: str
    gpu: float
    node: float


LINKS = (
    Links("NVLink 450 GB/s, InfiniBand 8 × 400 Gbit/s a node", 450e9, 400e9),
    Links("NVLink 450 GB/s, Ethernet 100 Gbit/s a node", 450e9, 12.5e9),
    Links("PCIe 32 GB/s, internet 1 Gbit/s a node", 32e9, 0.125e9),
)
ASSUMPTIONS = """Assumed: each GPU takes the same batch on any number of them; rings that pass through one node of eight
after another, so that what a GPU sends crosses each node's network once, at the pace of the slowest link; links at the
stated speed, without latency or congestion; DDP hides its exchange behind the backward pass, two thirds of the compute,
FSDP2 behind all of it; DiLoCo hides nothing, but meets only every {inner} steps; compute takes equally long on all
GPUs."""


def ring(bytes_held: float, gpus: int) -> float:
    """Bytes that each of n GPUs sends, and receives, to add something up and have the sum: 2 (n - 1) / n of it."""
    return 2 * (gpus - 1) / gpus * bytes_held


def ddp_bytes(weights: float, gpus: int) -> float:
    """Gradients in float32, added up once a step."""
    return ring(4 * weights, gpus)


def fsdp_bytes(weights: float, gpus: int) -> float:
    """One pass: weights in bfloat16 gathered twice, gradients in float32 added up and left where they belong."""
    return (gpus - 1) / gpus * (2 * 2 + 4) * weights


def diloco_bytes(weights: float, gpus: int, inner_steps: int) -> float:
    """What DDP moves in a step, once in `inner_steps`."""
    return ddp_bytes(weights, gpus) / inner_steps


def pace(links: Links, gpus: int) -> float:
    """Bytes per second of a ring over all GPUs."""
    return links.gpu if gpus <= PER_NODE else min(links.gpu, links.node)


def step_s(compute_s: float, moved_s: float, hidden_s: float) -> float:
    """Seconds of a step that computes, and moves bytes, of which what takes up to `hidden_s` costs nothing."""
    return compute_s + max(0.0, moved_s - hidden_s)


def steps_s(compute_s: float, weights: float, links: Links, gpus: int, inner_steps: int) -> dict[str, float]:
    """Seconds of a step by each way to split the work."""
    speed = pace(links, gpus)
    return {
        "DDP": step_s(compute_s, ddp_bytes(weights, gpus) / speed, compute_s * 2 / 3),
        "FSDP2": step_s(compute_s, fsdp_bytes(weights, gpus) / speed, compute_s),
        "DiLoCo": step_s(compute_s, diloco_bytes(weights, gpus, inner_steps) / speed, 0.0),
    }


def modelled(asked: argparse.Namespace) -> None:
    print(f"\n{asked.weights / 1e9:.2f} billion weights, {asked.compute_s} s of compute a step ({asked.compute_from}).")
    print(ASSUMPTIONS.replace("\n", " ").format(inner=asked.inner_steps))
    print("\n| links | GPUs | DDP | FSDP2 | DiLoCo |\n|---|---|---|---|---|")
    for links in LINKS:
        for gpus in GPUS:
            found = steps_s(asked.compute_s, asked.weights, links, gpus, asked.inner_steps)
            told = (f"{seconds:.3g} s ({asked.compute_s / seconds:.0%})" for seconds in found.values())
            print(f"| {links.name} | {gpus:,} | {' | '.join(told)} |")


def measured(asked: argparse.Namespace) -> None:
    threads, os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS"), "1"  # Ray's workers inherit it
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(asked.runs):
            for workers, found in rates.items():
                found.append(tokens_per_s(asked, workers, Path(scratch, f"{workers}-{turn}")))
    os.environ.pop("OMP_NUM_THREADS") if threads is None else os.environ.update(OMP_NUM_THREADS=threads)
    print("| workers | tokens/s, median | of 1 worker's |\n|---|---|---|")
    one = statistics.median(rates[1])
    for workers, found in rates.items():
        print(f"| {workers} | {statistics.median(found):,.0f} | {statistics.median(found) / one:.2f} |")


def tokens_per_s(asked: argparse.Namespace, workers: int, output: Path) -> float:
    """Median over a run's log rows; the first one holds the start."""
    llmray.train(
        {
            "task": {"name": "causal_lm", "seq_len": 128},
            "model": {"from": f"new:{asked.model}"},
            "data": {"train": "builtin:shapes?rows=8000", "tokenizer": {"vocab_size": 400, "sample_rows": 200}},
            "train": {"steps": asked.steps, "batch_size": 32, "log_every": 5},
            "scale": {"workers": workers},
            "output": str(output),
        }
    )
    rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return statistics.median([row["tokens_per_s"] for row in rows if "tokens_per_s" in row][1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-runs", action="store_true", help="only the model")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--model", default="gpt2-mini")
    parser.add_argument("--compute_s", type=float, help="a step's compute on one GPU, measured")
    parser.add_argument("--weights", type=float, default=1.24e9)
    parser.add_argument("--inner_steps", type=int, default=500)
    asked = parser.parse_args()
    asked.compute_from = (
        "measured" if asked.compute_s else "assumed, not measured: 16,384 tokens at 40 % of 989 TFLOP/s"
    )
    asked.compute_s = asked.compute_s or round(6 * asked.weights * 16_384 / (0.4 * 989e12), 3)
    if not asked.no_runs:
        measured(asked)
    modelled(asked)


if __name__ == "__main__":
    main()
