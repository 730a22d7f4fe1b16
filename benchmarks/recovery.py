"""Seconds from `kill -9` of a training worker to the next finished step, and where they go, as Markdown.

    python benchmarks/recovery.py [--kills 10] [--workers 2]

A small GPT-2 learns from a prepared store on Ray Train workers of this machine, a checkpoint every fifth step.  Some
steps after each start, one of the workers, chosen at random, is killed.  The parts: until a new worker process is given
its work (Ray sees the death and starts processes), until the model and the checkpoint are loaded in all of them (mostly
imports of PyTorch and of transformers), and until the first row of metrics arrives.
"""

import argparse
import itertools
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.session import session
from llmray.job.load import load
from llmray.job.schema import Job
from llmray.store.journal import Progress
from llmray.stream.prepare import prepare
from llmray.training.driver import on_workers
from llmray.training.plan import plan

STEPS_BETWEEN = 12
WORKER = b"ray::RayTrainWorker"


def job_of(folder: str, workers: int, kills: int) -> Job:
    return load(
        {
            "task": {"name": "causal_lm", "seq_len": 32},
            "model": {"from": "new:gpt2-tiny"},
            "data": {"train": "builtin:shapes?rows=2000", "tokenizer": {"vocab_size": 400, "sample_rows": 200}},
            "train": {"steps": 1_000_000, "batch_size": 16, "log_every": 1, "checkpoint_every": 5},
            "scale": {"workers": workers, "max_failures": kills},
            "output": folder,
        }
    )


def workers() -> set[int]:
    """Processes of this program's Ray that train."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(WORKER) and ours(int(folder.name)):
                found.add(int(folder.name))
    return found


def ours(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


class Killer:
    """Kills a worker when enough steps were told, until it has done so `kills` times; then asks the run to end."""

    def __init__(self, kills: int) -> None:
        self.kills, self.rows = kills, 0
        self.killed_at, self.before = 0.0, set[int]()
        self.started, self.began = 0.0, 0.0
        self.parts: list[list[float]] = []

    def take(self, rows: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        for row in rows:
            if "began_at" in row:
                self.rows, self.began = 0, now
            elif "loss" in row:
                if not self.rows and self.killed_at:
                    self.note(now)
                self.rows += 1
        if self.rows >= STEPS_BETWEEN and not self.killed_at:
            self.act()

    def act(self) -> None:
        if len(self.parts) == self.kills:
            signal.raise_signal(signal.SIGINT)
            self.killed_at = time.monotonic()
            return
        self.before = workers()
        os.kill(random.choice(sorted(self.before)), signal.SIGKILL)
        self.killed_at, self.started = time.monotonic(), 0.0
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        while not workers() - self.before:
            time.sleep(0.05)
        self.started = time.monotonic()

    def note(self, now: float) -> None:
        moments = (self.killed_at, self.started, self.began, now)
        self.parts.append([after - before for before, after in itertools.pairwise(moments)])
        self.killed_at = 0.0


def main(kills: int, count: int) -> None:
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        store, output = f"{folder}/store", f"{folder}/run"
        job = job_of(output, count, kills)
        with session(job.scale):
            prepare(job.model_copy(update={"output": store}), Progress.silent())
            stored = load(job, [f"data.train={store}"])
            killer = Killer(kills)
            on_workers(*plan(stored), killer.take, keep=True)
    names = ("a new process has work", "model and checkpoint are loaded", "a step is finished")
    print(f"{count} workers, {kills} kills\n\n| until | median, s | most, s |\n|---|---|---|")
    for name, seconds in zip(names, zip(*killer.parts, strict=True), strict=True):
        print(f"| {name} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
    whole = [sum(parts) for parts in killer.parts]
    print(f"| in all | {statistics.median(whole):.1f} | {max(whole):.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    main(given.kills, given.workers)
