"""Tokens per second of llmray's training beside other loops over the same model and blocks, as a Markdown table.

    python benchmarks/train_step.py [--pairs 5] [--steps 40] [--only trainer] [--model gpt2-mini] [--rows 16] ...

On the CPU; AdamW, gradients clipped.  A ratio is the median of interleaved pairs: ours, theirs, ours, theirs …, each in
a process of its own that takes some steps before it is timed.  A bare loop is compared at each precision, all others
with llmray at its best, in compiled bfloat16.  `attention` says which kind the other loop uses: that which llmray
chooses for the length, or what `transformers` takes by itself.  Needs `pip install 'llmray[bench]'`.  With the
defaults some 45 minutes on two cores; `--pairs 1 --steps 10` some 8.
"""

import argparse
import statistics
from dataclasses import dataclass, replace

import contenders
import torch
from contenders import Case, Contender


@dataclass(frozen=True)
class Match:
    """Ours and theirs, and the least ratio that we aim at (None: told for what it is)."""

    run: Contender
    name: str
    ours: dict[str, bool]
    theirs: dict[str, bool]
    aim: float | None
    same_attention: bool = True


PLAIN, HALF, BEST = {}, {"bf16": True}, {"bf16": True, "compile": True}
MATCHES = (
    Match(contenders.bare, "bare PyTorch loop", PLAIN, PLAIN, 0.99),
    Match(contenders.bare, "bare PyTorch loop", HALF, HALF, 0.99),
    Match(contenders.bare, "bare PyTorch loop", BEST, BEST, 0.99),
    Match(contenders.trainer, "`transformers.Trainer`", BEST, PLAIN, 3.0, same_attention=False),
    Match(contenders.trainer, "`transformers.Trainer`", BEST, HALF, 1.45, same_attention=False),
    Match(contenders.trainer, "`transformers.Trainer`", BEST, BEST, 1.10, same_attention=False),
    Match(contenders.trainer, "`transformers.Trainer`", BEST, BEST, None),
    Match(contenders.accelerate, "`accelerate`", BEST, BEST, 1.0),
    Match(contenders.lightning, "Lightning", BEST, BEST, 1.0),
)


def spoken(mode: dict[str, bool]) -> str:
    return ("compiled " if mode.get("compile") else "") + ("bf16" if mode.get("bf16") else "fp32")


def line(match: Match, case: Case, pairs: int) -> str:
    attention = case.fastest_attention if match.same_attention else None
    ours, theirs = replace(case, **match.ours), replace(case, **match.theirs, attention=attention)
    rates = [(contenders.rate(contenders.llmray, ours), contenders.rate(match.run, theirs)) for _ in range(pairs)]
    one, other = (statistics.median(side) for side in zip(*rates, strict=True))
    ratio = statistics.median(a / b for a, b in rates)
    modes = f"{spoken(match.ours)} | {spoken(match.theirs)} | {attention or 'default'}"
    return f"| {match.name} | {modes} | {one:,.0f} | {other:,.0f} | {ratio:.2f} | {match.aim or ''} |"


def main(asked: argparse.Namespace) -> None:
    case = Case(asked.model, asked.words, asked.rows, asked.length, asked.steps, asked.threads)
    weights = contenders.model_of(case).num_parameters() / 1e6
    print(f"{asked.model}, {weights:.1f} million weights, {case.rows} × {case.length} tokens a step\n")
    print("| beside | llmray in | theirs in | attention | llmray, tokens/s | theirs, tokens/s | ratio | aim |")
    print("|---|---|---|---|---|---|---|---|")
    for match in MATCHES:
        if not asked.only or match.run.__name__ in asked.only:
            print(line(match, case, asked.pairs), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    names = list(dict.fromkeys(match.run.__name__ for match in MATCHES))
    parser.add_argument("--only", nargs="+", choices=names)
    parser.add_argument("--model", default="gpt2-mini")
    numbers = {"pairs": 5, "steps": 40, "rows": 16, "length": 128, "words": 8000, "threads": torch.get_num_threads()}
    for key, number in numbers.items():
        parser.add_argument(f"--{key}", type=int, default=number)
    main(parser.parse_args())
