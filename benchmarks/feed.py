"""Times the feed of prepared rows beside torch's DataLoader over the same Parquet, as a Markdown table.

    python benchmarks/feed.py [FOLDER]

Makes 200,000 rows of 256 tokens and 10,240,000 of 8 under FOLDER (`runs/feed`), once.  The loader reads them as a
Hugging Face dataset, memory-mapped, through a DistributedSampler; what it takes to make that dataset of the Parquet is
not counted.
"""

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, DistributedSampler, Sampler
from transformers import GPT2Config, GPT2LMHeadModel

from llmray.stream.blocks import Write
from llmray.stream.feed import Feed, Portion

BATCH = 32
WIDE, LONG = (200_000, 256), (10_240_000, 8)
FAR = 10_000_000
STEPS, STEP_BATCH = 15, 8
VOCABULARY = 8000


def made(folder: Path, rows: int, width: int) -> Path:
    """A store of Zipf-distributed tokens, in files of 32 MB."""
    if (folder / "manifest.json").exists():
        return folder
    draw, write, lines, held = np.random.default_rng(0), Write(str(folder)), [], (32 << 20) // (4 * width)
    for start in range(0, rows, held):
        count = min(held, rows - start)
        ids = draw.zipf(1.3, count * width).clip(max=VOCABULARY - 1).astype(np.int32)
        ends = pa.array(np.arange(count + 1, dtype=np.int32) * width)
        lines += write(pa.table({"input_ids": pa.ListArray.from_arrays(ends, pa.array(ids))})).to_pylist()
    about = {"task": {}, "processor": "", "job": {}, "result": {}, "schema": {"input_ids": "list<element: int32>"}}
    (folder / "manifest.json").write_text(json.dumps(about | {"shards": lines}))
    return folder


def feed(store: Path, rank: int, world: int, start: int) -> Iterator[torch.Tensor]:
    for columns in Feed([Portion((str(store),))], BATCH, rank=rank, world=world, start=start):
        yield torch.from_numpy(np.stack(columns["input_ids"]))


class From(Sampler[int]):
    """A sampler's indices from one on, which plain DataLoader has no way to ask for."""

    def __init__(self, sampler: Sampler[int], start: int) -> None:
        self.sampler, self.start = sampler, start

    def __iter__(self) -> Iterator[int]:
        return islice(iter(self.sampler), self.start, None)


def loader(store: Path, rank: int, world: int, start: int, skip: bool = True) -> Iterator[torch.Tensor]:
    files = sorted(map(str, (store / "blocks").glob("*.parquet")))
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(store / "cache"))
    order = DistributedSampler(rows, world, rank, shuffle=True, seed=0)
    sampler = From(order, start // world) if skip else order
    batches = DataLoader(rows.with_format("torch"), BATCH, sampler=sampler, num_workers=1, prefetch_factor=4)
    return (batch["input_ids"] for batch in islice(batches, 0 if skip else start // (BATCH * world), None))


def first(make: Any, *where: Any) -> float:
    """Seconds to the first batch."""
    began = time.monotonic()
    next(make(*where))
    return time.monotonic() - began


def worker(make: Any, store: Path, rank: int, world: int, seconds: float, told: Any) -> None:
    torch.set_num_threads(1)
    batches = make(store, rank, world, 0)
    next(batches)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        next(batches)
        count += 1
    told.put(count / (time.monotonic() - began))


def rate(make: Any, store: Path, world: int = 2, seconds: float = 10) -> float:
    """Batches a second of all workers together, each a process of its own."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    workers = [context.Process(target=worker, args=(make, store, rank, world, seconds, told)) for rank in range(world)]
    for process in workers:
        process.start()
    found = sum(told.get() for _ in workers)
    for process in workers:
        process.join()
    return found


def waiting(make: Any, store: Path) -> float:
    """Median share of a training step that a GPT-2 of 10 million weights spends waiting for its batch."""
    size = {"vocab_size": VOCABULARY, "n_positions": 256, "n_embd": 320, "n_layer": 6, "n_head": 5}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    optimizer, batches, shares = torch.optim.AdamW(model.parameters()), make(store, 0, 1, 0), []
    next(batches)
    for _ in range(STEPS):
        began = time.monotonic()
        ids = next(batches)[:STEP_BATCH].long()
        got = time.monotonic()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        shares.append((got - began) / (time.monotonic() - began))
    return statistics.median(shares)


def replayed(store: Path, rank: int, world: int, start: int) -> Iterator[torch.Tensor]:
    return loader(store, rank, world, start, skip=False)


def line(name: str, ours: str, theirs: str) -> None:
    print(f"| {name} | {ours} | {theirs} |", flush=True)


def main(folder: Path) -> None:
    wide, long = made(folder / "wide", *WIDE), made(folder / "long", *LONG)
    for store in (wide, long):  # Parquet to a dataset, and what is imported at first use
        first(loader, store, 0, 2, 0)
    first(feed, wide, 0, 2, 0)
    line("", "`Feed`", "`DataLoader`")
    line("---", "---", "---")
    line("time to the first batch", *(f"{first(make, wide, 0, 2, 0):.2f} s" for make in (feed, loader)))
    ours, skipped, whole = (first(make, wide, 0, 2, 180_000) for make in (feed, loader, replayed))
    line("resume at row 180,000", f"{ours:.2f} s", f"{whole:.1f} s; {skipped:.2f} s with a sampler that skips")
    line("resume at row 10 million", *(f"{first(make, long, 0, 2, FAR):.2f} s" for make in (feed, loader)))
    line("share of a step spent waiting", *(f"{waiting(make, wide):.2%}" for make in (feed, loader)))
    line("batches/s of 2 workers", *(f"{rate(make, wide):,.0f}" for make in (feed, loader)))


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(Path(*sys.argv[1:] or ["runs/feed"]))
