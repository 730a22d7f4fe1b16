"""Tokens per second of llmray's training loop beside a bare PyTorch loop and `transformers.Trainer`, as Markdown.

    python benchmarks/train_step.py [--pairs 5] [--steps 40] [--width 256] [--layers 6] [--rows 16] [--length 128]

A GPT-2, packed blocks in memory, AdamW, gradients clipped, on the CPU.  Each line is the median of interleaved pairs:
ours, theirs, ours, theirs …, each in a process of its own that takes some steps before it is timed.  llmray's loop runs
as `train` sets it up (plain attention for short blocks on a CPU); `Trainer` with its own data loader and defaults.
`Trainer` needs `accelerate`, which `pip install 'llmray[lora]'` brings.
"""

import argparse
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from llmray.job.training import Train
from llmray.tasks.base import Tensors
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.training.attempt import EAGER_TOKENS
from llmray.training.loop import fit
from llmray.training.optim import optimizer
from llmray.training.parallel import Learner
from llmray.training.thrift import compiled

WARM = 5
MODES = ("fp32", "bf16", "bf16 compiled")


def model_of(size: argparse.Namespace) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    torch.set_num_threads(size.threads)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size.words, n_embd=size.width, n_layer=size.layers, n_head=size.width // 64,
            n_positions=size.length, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0, loss_type="ForCausalLM",
        )
    )  # fmt: skip


def blocks(size: argparse.Namespace) -> torch.Tensor:
    """Packed blocks for eight steps."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, size.words, (8 * size.rows, size.length), generator=draw)


class Clock:
    """Tokens per second since the warm-up's end."""

    def __init__(self, size: argparse.Namespace) -> None:
        self.size, self.taken, self.began = size, 0, 0.0

    def step_ended(self) -> None:
        self.taken += 1
        if self.taken == WARM:
            self.began = time.monotonic()

    def rate(self) -> float:
        return (self.taken - WARM) * self.size.rows * self.size.length / (time.monotonic() - self.began)


def llmray(size: argparse.Namespace, mode: str) -> float:
    model, clock, ids = model_of(size), Clock(size), blocks(size)
    if size.length <= EAGER_TOKENS:
        model.set_attn_implementation("eager")
    train = Train.model_validate({"batch_size": size.rows, "precision": mode.split()[0], "schedule": "linear"})
    learner = Learner(model, CausalLanguageModel(None, None))  # type: ignore[arg-type]
    if mode.endswith("compiled"):
        compiled(learner, in_blocks=False)

    def batches() -> Any:
        for part in itertools.cycle(ids.split(size.rows)):
            yield {"input_ids": part, "labels": part, "attention_mask": torch.ones_like(part)}
            clock.step_ended()

    for _ in fit(learner, batches(), train, WARM + size.steps, optimizer=optimizer(model, train)):
        pass
    clock.step_ended()
    return clock.rate()


def bare(size: argparse.Namespace, mode: str) -> float:
    model, clock, ids = model_of(size).train(), Clock(size), blocks(size)
    adamw = torch.optim.AdamW(model.parameters(), lr=5e-4)
    if mode.endswith("compiled"):
        model.compile()
    for part in itertools.islice(itertools.cycle(ids.split(size.rows)), WARM + size.steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=mode.startswith("bf16")):
            loss = model(input_ids=part, labels=part).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        clock.step_ended()
    return clock.rate()


def trainer(size: argparse.Namespace, mode: str) -> float:
    clock = Clock(size)
    rows: list[Tensors] = [{"input_ids": block, "labels": block} for block in blocks(size)]

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step_ended()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=WARM + size.steps, per_device_train_batch_size=size.rows, use_cpu=True,
            bf16=mode.startswith("bf16"), torch_compile=mode.endswith("compiled"),
            report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        Trainer(model_of(size), arguments, train_dataset=rows, callbacks=[Ticks()]).train()
    return clock.rate()


def told(run: Callable[..., float], size: argparse.Namespace, mode: str, answer: Any) -> None:
    answer.put(run(size, mode))


def rate(run: Callable[..., float], size: argparse.Namespace, mode: str) -> float:
    """Tokens per second, in a new process."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=told, args=(run, size, mode, answer))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{run.__name__}, {mode}: ended with exit code {process.exitcode}")
    return float(answer.get())


def main(size: argparse.Namespace) -> None:
    print(
        f"GPT-2, {model_of(size).num_parameters() / 1e6:.1f} million weights, {size.rows} × {size.length} tokens a step"
    )
    print("\n| beside | precision | llmray, tokens/s | theirs, tokens/s | ratio |\n|---|---|---|---|---|")
    for theirs, name in ((bare, "bare PyTorch loop"), (trainer, "`transformers.Trainer`")):
        for mode in MODES:
            pairs = [(rate(llmray, size, mode), rate(theirs, size, mode)) for _ in range(size.pairs)]
            one, other = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"| {name} | {mode} | {one:,.0f} | {other:,.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    numbers = {"pairs": 5, "steps": 40, "width": 256, "layers": 6, "rows": 16, "length": 128, "words": 8000}
    for key, number in (numbers | {"threads": torch.get_num_threads()}).items():
        parser.add_argument(f"--{key}", type=int, default=number)
    main(parser.parse_args())
