"""What telling a row and saving a checkpoint cost the training loop, as Markdown.

    python benchmarks/checkpoint.py [--checkpoints 100] [--every 10]

A GPT-2 trains on random blocks on the CPU, with a checkpoint every few steps and without, in turns.  The stall is the
time that the loop stands still for a checkpoint, while the state is copied and what is left of the checkpoint before is
written.  The rest of what one costs is that writing takes from the cores that learn.  Rows are told as a Ray Train
worker tells them, to an actor.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator

import ray
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from cluster.session import session
from llmray.job.training import Scale, Train
from llmray.tasks.base import Tensors
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.training.checkpoint import Saver
from llmray.training.loop import fit
from llmray.training.optim import optimizer
from llmray.training.parallel import Learner
from llmray.training.watch import Journal

SIZES = {"2 layers of 128": (2, 128), "6 layers of 256": (6, 256)}
WORDS, ROWS, LENGTH, TOLD = 8000, 8, 64, 1000
ROW = {"step": 1, "loss": 1.5, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_s": 1e4, "elapsed_s": 1.0}


def batches() -> Iterator[Tensors]:
    ids = torch.randint(0, WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    return itertools.repeat({"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)})


def trained(layers: int, width: int, steps: int, every: int | None, root: str) -> tuple[float, list[float], int]:
    """Seconds of a run, the stalls in it, and the model's weights."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=WORDS, n_layer=layers, n_embd=width, n_head=4, n_positions=LENGTH, loss_type="ForCausalLM"
        )
    )
    train = Train(batch_size=ROWS, checkpoint_every=every, log_every=steps)
    steering, saver, stalls = optimizer(model, train), Saver(root, keep=2), list[float]()

    def save(step: int) -> None:
        began = time.perf_counter()
        saver.save(model, steering, step, {})
        stalls.append(time.perf_counter() - began)

    learner = Learner(model, CausalLanguageModel(None, None))  # type: ignore[arg-type]
    began = time.perf_counter()
    for _ in fit(learner, batches(), train, steps, optimizer=steering, on_checkpoint=save if every else None):
        pass
    saver.wait()
    return time.perf_counter() - began, stalls, model.num_parameters()


def told() -> list[float]:
    """Seconds that the teller waits for each of some rows."""
    journal, waits = Journal.remote(), list[float]()  # type: ignore[attr-defined]
    ray.get(journal.tell.remote(ROW))
    for _ in range(TOLD):
        began = time.perf_counter()
        journal.tell.remote(ROW)
        waits.append(time.perf_counter() - began)
        time.sleep(0.005)
    return waits


def spoken(seconds: list[float]) -> str:
    """Median and 99th percentile, in milliseconds."""
    high = sorted(seconds)[int(0.99 * len(seconds))]
    return f"{1000 * statistics.median(seconds):.2f} | {1000 * high:.2f}"


def main(checkpoints: int, every: int) -> None:
    with session(Scale()):
        print(f"| | median, ms | p99, ms |\n|---|---|---|\n| telling a row | {spoken(told())} |\n")
    print("| model | million weights | step, ms | stall, median, ms | p99, ms | in all, ms a checkpoint |")
    print("|---|---|---|---|---|---|")
    rounds, count = 4, checkpoints // 4
    for name, (layers, width) in SIZES.items():
        steps, without, with_, stalls = count * every, 0.0, 0.0, list[float]()
        for _ in range(rounds):
            without += trained(layers, width, steps, None, "")[0]
            with tempfile.TemporaryDirectory() as root:
                spent, found, weights = trained(layers, width, steps, every, root)
            with_, stalls = with_ + spent, stalls + found
        step, whole = 1000 * without / steps / rounds, 1000 * (with_ - without) / len(stalls)
        print(f"| {name} | {weights / 1e6:.1f} | {step:.0f} | {spoken(stalls)} | {whole:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=100)
    parser.add_argument("--every", type=int, default=10)
    given = parser.parse_args()
    main(given.checkpoints, given.every)
