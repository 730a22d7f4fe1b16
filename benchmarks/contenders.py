"""One model trained on the same blocks by llmray and by other loops, each giving its tokens per second.

It does not know who is compared with whom.  llmray runs as `train` sets a worker up (`Attempt`), reading a prepared
store from disk; the others have all blocks in memory.
"""

import itertools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from llmray.corpus.record import Columns
from llmray.job.schema import Job
from llmray.model.load import build
from llmray.stream.blocks import Write
from llmray.stream.feed import Portion
from llmray.tasks import make
from llmray.tasks.base import Processor, Task
from llmray.training.attempt import Attempt, Seat, Work
from llmray.training.attention import EAGER_TOKENS
from llmray.training.loop import Row

WARM = 10
"""Steps before the clock starts; llmray tells where it is as often."""
KEPT = 64
"""Batches that the data holds."""


@dataclass(frozen=True)
class Case:
    """What all contenders are given: model (a preset), vocabulary, shape of a batch, steps, precision and device."""

    model: str
    words: int
    rows: int
    length: int
    steps: int
    threads: int
    bf16: bool = False
    compile: bool = False
    device: str = "cpu"
    attention: str | None = None
    """Attention that the others use; None: what `transformers` takes by itself.  llmray always chooses by itself."""

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    @property
    def total(self) -> int:
        return WARM + self.steps

    @property
    def fastest_attention(self) -> str:
        """What llmray chooses."""
        return "eager" if self.device == "cpu" and self.length <= EAGER_TOKENS else "sdpa"


Contender: TypeAlias = Callable[[Case], float]


class Clock:
    """Tokens per second since the warm-up's end."""

    def __init__(self, case: Case) -> None:
        self.case, self.taken, self.began, self.ended = case, 0, 0.0, 0.0

    def step_ended(self) -> None:
        self.taken += 1
        if self.taken == WARM:
            self.began = self._now()
        if self.taken == self.case.total:
            self.ended = self._now()

    def _now(self) -> float:
        if self.case.device == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    def rate(self) -> float:
        return self.case.steps * self.case.rows * self.case.length / (self.ended - self.began)


def blocks(case: Case) -> np.ndarray:
    """Full blocks, (rows, length)."""
    draw = np.random.default_rng(0)
    return draw.integers(2, case.words, (KEPT * case.rows, case.length), dtype=np.int32)


def task_of(case: Case) -> Task:
    words = {"<end>": 0, "<unknown>": 1} | {f"w{number}": number for number in range(2, case.words)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unknown>"))
    processor = Processor(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>"))
    return make(job_of(case, "").task, processor)


def job_of(case: Case, store: str) -> Job:
    train = {
        "steps": case.total, "batch_size": case.rows, "precision": case.precision, "compile": case.compile,
        "log_every": WARM,
    }  # fmt: skip
    return Job.model_validate(
        {
            "task": {"name": "causal_lm", "seq_len": case.length}, "model": {"from": f"new:{case.model}"},
            "data": {"train": store}, "train": train, "output": store,
        }
    )  # fmt: skip


def model_of(case: Case) -> PreTrainedModel:
    torch.manual_seed(0)
    torch.set_num_threads(case.threads)
    job = job_of(case, "")
    assert job.model is not None
    model = build(job.model, task_of(case)).to(case.device)
    model.config.use_cache = False  # as `Trainer` sets it
    if case.attention:
        model.set_attn_implementation(case.attention)
    return model.train()


def stored(features: Columns, folder: str) -> str:
    """Encoded rows as a prepared store, without the stamps of the job that made it."""
    table = pa.table({name: pa.array(values, pa.list_(pa.int32())) for name, values in features.items()})
    lines = Write(folder)(table).to_pylist()
    about = {"task": {}, "processor": "", "job": {}, "result": {}, "schema": dict.fromkeys(features, "list<int32>")}
    Path(folder, "manifest.json").write_text(json.dumps(about | {"shards": lines}))
    return folder


def llmray(case: Case) -> float:
    with tempfile.TemporaryDirectory() as folder:
        store = stored({"input_ids": list(blocks(case))}, folder)
        told = [row["elapsed_s"] for row in rows(case, task_of(case), store)]
    return case.steps * case.rows * case.length / (told[-1] - told[0])


def rows(case: Case, task: Task, store: str) -> Iterator[Row]:
    """The log rows of a worker of llmray that learns from a store, one every `WARM` steps."""
    torch.set_num_threads(case.threads)
    work = Work(job_of(case, store), task, case.total, (Portion((store,)),))
    return Attempt(work, Seat(device=torch.device(case.device)), {}, None).rows()


def bare(case: Case) -> float:
    """A loop such as one writes by hand, over tensors in memory."""
    model, clock = model_of(case), Clock(case)
    adamw = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    if case.compile:
        model.compile()
    for batch in itertools.islice(in_turn(case), case.total):
        with torch.autocast(case.device, torch.bfloat16, enabled=case.bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        clock.step_ended()
    return clock.rate()


def in_turn(case: Case) -> Iterator[dict[str, torch.Tensor]]:
    for ids in itertools.cycle(torch.from_numpy(blocks(case)).long().to(case.device).split(case.rows)):
        yield {"input_ids": ids, "labels": ids}


class InMemory(Dataset[dict[str, torch.Tensor]]):
    """The blocks for a `DataLoader`."""

    def __init__(self, case: Case) -> None:
        self.ids = torch.from_numpy(blocks(case)).long()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[at], "labels": self.ids[at]}


def trainer(case: Case) -> float:
    """`transformers.Trainer`: its defaults, but for what `case` says."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    clock = Clock(case)

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step_ended()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=case.total, per_device_train_batch_size=case.rows, use_cpu=case.device == "cpu",
            bf16=case.bf16, torch_compile=case.compile, report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        made = Trainer(model_of(case), arguments, train_dataset=InMemory(case), callbacks=[Ticks()])
        made.remove_callback(PrinterCallback)
        made.train()
    return clock.rate()


def accelerate(case: Case) -> float:
    """The loop of `accelerate`'s quick tour, its precision and compiler as its performance guide has them."""
    from accelerate import Accelerator

    clock = Clock(case)
    accelerator = Accelerator(
        mixed_precision="bf16" if case.bf16 else "no", cpu=case.device == "cpu",
        dynamo_backend="inductor" if case.compile else None,
    )  # fmt: skip
    model = model_of(case)
    adamw = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    loader = DataLoader(InMemory(case), case.rows, shuffle=True, drop_last=True)
    model, adamw, loader = accelerator.prepare(model, adamw, loader)
    for batch in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), case.total):
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        clock.step_ended()
    return clock.rate()


def lightning(case: Case) -> float:
    """Lightning, with `barebones`, which its docs advise for measuring overhead, and `torch.compile` as they advise."""
    from lightning import LightningModule, Trainer

    clock = Clock(case)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model_of(case)

        def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            loss: torch.Tensor = self.model(**batch).loss
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=5e-4, fused=True)

        def on_before_optimizer_step(self, _: torch.optim.Optimizer) -> None:
            """Lightning's own clipping refuses a fused optimiser in mixed precision."""
            torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)

        def on_train_batch_end(self, *_: Any) -> None:
            clock.step_ended()

    module = Module()
    fits = Trainer(
        accelerator=case.device, devices=1, precision="bf16-mixed" if case.bf16 else "32-true", max_steps=case.total,
        barebones=True,
    )  # fmt: skip
    loader = DataLoader(InMemory(case), case.rows, shuffle=True, drop_last=True)
    fits.fit(torch.compile(module) if case.compile else module, loader)
    return clock.rate()


def rate(run: Contender, case: Case) -> float:
    """Tokens per second, in a new process."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=_told, args=(run, case, answer))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{run}, {case}: ended with exit code {process.exitcode}")
    return float(answer.get())


def _told(run: Contender, case: Case, answer: Any) -> None:
    answer.put(run(case))
