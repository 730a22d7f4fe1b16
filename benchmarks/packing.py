"""Useful tokens per second of packed blocks beside padded batches of the same short texts, as a Markdown table.

    python benchmarks/packing.py [LINES.gz] [--pairs 5] [--steps 40] [--model gpt2-mini] [--length 128] [--rows 16]

Packed: blocks of `--length` tokens, documents whole, attention and positions inside each (`packing: documents`).
Padded: one text a row, each batch as wide as its longest, with as many useful tokens a step on average.  Both through
the same worker and loop of llmray, eager, each in a process of its own, interleaved; padding is not counted as useful.
LINES.gz has one text a line; without it, the English sentences of Multi30k in `data/` (see configs/real).  Some 10
minutes; `--pairs 1 --steps 10` one.
"""

import argparse
import gzip
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice

import contenders
import torch
from contenders import WARM, Case

from llmray.corpus.pack import pack, pack_best_fit
from llmray.corpus.record import Columns
from llmray.corpus.tokenizer import train
from llmray.tasks import make
from llmray.tasks.base import Processor
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.training.attempt import CPU, multiplies_bf16

LINES = "data/multi30k/train.en.gz"
TEXTS = 20_000


def documents(path: str) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [line.rstrip() for line in islice(lines, TEXTS)]


def task_of(case: Case, path: str) -> CausalLanguageModel:
    tokenizer = train(documents(path), case.words)
    task = make(contenders.job_of(case, "").task, Processor(tokenizer))
    assert isinstance(task, CausalLanguageModel)
    return task


def packed(task: CausalLanguageModel, ids: list, case: Case) -> tuple[Columns, int]:
    """Blocks, and how many make a step."""
    return pack_best_fit(ids, case.length, task.end), case.rows


def padded(task: CausalLanguageModel, ids: list, case: Case) -> tuple[Columns, int]:
    """One text a row, and how many have the tokens of a step."""
    rows = [row for one in ids for row in pack([one], case.length, task.end)]
    return {"input_ids": rows}, round(case.rows * case.length * len(rows) / sum(map(len, rows)))


def useful(lay: Callable[..., tuple[Columns, int]], path: str, case: Case) -> float:
    """Median of tokens per second, padding left out."""
    task = task_of(case, path)
    features, rows = lay(task, task.ids(documents(path)), case)
    with tempfile.TemporaryDirectory() as folder:
        store = contenders.stored(features, folder)
        told = [row["tokens_per_s"] for row in contenders.rows(replace(case, rows=rows), task, store)]
    return statistics.median(told[1:])


def shape(path: str, case: Case) -> str:
    task = task_of(case, path)
    lengths = [len(ids) + 1 for ids in task.ids(documents(path))]
    mean, longest = statistics.mean(lengths), max(lengths)
    return f"{len(lengths):,} texts of {mean:.1f} tokens (longest {longest}), some {case.rows * case.length} a step"


def main(asked: argparse.Namespace) -> None:
    case = Case(
        asked.model, asked.words, asked.rows, asked.length, asked.steps, asked.threads, bf16=multiplies_bf16(CPU)
    )
    print(f"{case.model}, {case.precision}: {shape(asked.path, case)}\n")
    print("| packed, useful tokens/s | padded, useful tokens/s | ratio | aim |\n|---|---|---|---|")
    ways = [partial(useful, lay, asked.path) for lay in (packed, padded)]
    pairs = [tuple(contenders.rate(way, case) for way in ways) for _ in range(asked.pairs)]
    one, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"| {one:,.0f} | {other:,.0f} | {statistics.median(a / b for a, b in pairs):.2f} | 2 |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", nargs="?", default=LINES)
    parser.add_argument("--model", default="gpt2-mini")
    numbers = {"pairs": 5, "steps": 4 * WARM, "rows": 16, "length": 128, "words": 8000}
    for key, number in (numbers | {"threads": torch.get_num_threads()}).items():
        parser.add_argument(f"--{key}", type=int, default=number)
    main(parser.parse_args())
