"""Tokens per second and model FLOPs utilisation on one GPU, beside `transformers.Trainer`, as a Markdown table.

    python benchmarks/gpu.py [--pairs 3] [--steps 50] [--only gpt2-base] [--rows N] [--cpu]

A GPT-2 of 124 million weights and a LLaMA of 1.08 billion (its utilisation is what compares with other sizes), from
random weights on random blocks, compiled bf16, fused AdamW, the same batch for both.  It runs alone on a bare machine:
no network, no data.  Without a GPU, or with `--cpu`, it takes its way through tiny models on the CPU, and says so:
those rows are no figures.  Needs `pip install
'llmray[bench]'`.  Some 20 minutes on an H100 (estimated), 3 on a CPU with `--pairs 1 --steps 10`.
"""

import argparse
import statistics
from dataclasses import replace

import contenders
import torch
from contenders import Case

from llmray.training import flops

WORDS = 50_304
SHAPES = {"gpt2-base": (32, 1024), "llama-1b": (8, 2048)}
"""Model → rows and tokens of a batch."""
TINY = {"gpt2-tiny": (4, 64), "llama-tiny": (4, 64)}
PUBLISHED = {
    "gpt2-base": "llm.c 475,000 (41 %); modded-nanogpt, record 7, 462,000 (40 %)",
    "llama-1b": "llm-foundry, 1.3B, 45,500 (42 %); nanochat d32 (51 %); torchtitan, 8B, 6,667 (33 to 39 %)",
}
"""Tokens per second of one H100, and utilisation, as their authors tell; of other models where it says so."""


def device_of(asked: argparse.Namespace) -> str:
    return "cuda" if torch.cuda.is_available() and not asked.cpu else "cpu"


def cases(asked: argparse.Namespace) -> list[Case]:
    device = device_of(asked)
    shapes, words = (SHAPES, WORDS) if device == "cuda" else (TINY, 500)
    return [
        Case(name, words, asked.rows or rows, length, asked.steps, torch.get_num_threads(), True, True, device)
        for name, (rows, length) in shapes.items()
        if not asked.only or name in asked.only
    ]


def token_flops(case: Case) -> float:
    """Of the model's forward and backward pass; it is built where it takes no memory."""
    with torch.device("meta"):
        model = contenders.model_of(replace(case, device="meta"))
    found = flops.per_token(model, contenders.job_of(case, "").task)
    assert found
    return found


def used(case: Case, tokens_per_s: float) -> str:
    """Share of the device's arithmetic, where its peak is known."""
    peak = flops.peak(torch.device(case.device), case.precision)
    return f"{token_flops(case) * tokens_per_s / peak:.1%}" if peak else "not known"


def line(case: Case, pairs: int) -> str:
    rates = [tuple(contenders.rate(run, case) for run in (contenders.llmray, contenders.trainer)) for _ in range(pairs)]
    ours, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
    ratio = statistics.median(a / b for a, b in rates)
    told = f"{ours:,.0f} | {used(case, ours)} | {theirs:,.0f} | {used(case, theirs)} | {ratio:.2f}"
    return f"| {case.model}, {case.rows} × {case.length} | {told} | {PUBLISHED.get(case.model, '')} |"


def main(asked: argparse.Namespace) -> None:
    if device_of(asked) == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    else:
        print("No GPU is used: tiny models on the CPU, which show that the script runs and nothing else.\n")
    print("| model, batch | llmray, tokens/s | utilisation | `Trainer`, tokens/s | utilisation | ratio | published |")
    print("|---|---|---|---|---|---|---|")
    for case in cases(asked):
        print(line(case, asked.pairs), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rows", type=int, help="rows of a batch, for all models")
    parser.add_argument("--only", nargs="+", choices=[*SHAPES, *TINY])
    parser.add_argument("--cpu", action="store_true")
    main(parser.parse_args())
