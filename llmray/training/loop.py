"""The training loop: forward, backward, clip, step, log, validate, save.  Plain PyTorch.

It does not know what the task is, where batches come from or where checkpoints go.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from llmray.job.errors import LlmrayError
from llmray.job.schema import Train
from llmray.tasks.base import Task, Tensors
from llmray.training.optim import schedule

Row: TypeAlias = dict[str, float]


class DivergedError(LlmrayError):
    """The gradient is no longer a number; more steps cannot mend it."""


def fit(
    model: torch.nn.Module,
    task: Task,
    batches: Iterator[Tensors],
    train: Train,
    total_steps: int,
    *,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str = "cpu",
    world: int = 1,
    start_step: int = 0,
    unlogged: torch.Tensor | None = None,
    evaluate: Callable[[], Row] | None = None,
    on_checkpoint: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Row]:
    """Take the steps from `start_step` to `total_steps`, yielding a row at each log and each validation.

    Each worker calls this with its own batches, `train.accumulate` a step; when one of them `should_stop`, all save
    and end after the same step.  `unlogged` holds the sums of steps since the last row, to begin with and from then on.
    """
    device, factor = torch.device(device), schedule(train, total_steps)
    weights = [p for p in model.parameters() if p.requires_grad]
    meter = Meter(device, world, unlogged)
    model.train()
    for step in range(start_step, total_steps):
        for group in optimizer.param_groups:
            group["lr"] = train.learning_rate * factor(step)
        sums = torch.zeros(4, dtype=torch.float64, device=device)  # loss, targets, tokens, asked to stop
        sums[3] = float(should_stop())
        for part in range(train.accumulate):
            batch = meter.next_of(batches)
            sums[2] += tokens(batch)
            last = part == train.accumulate - 1
            with model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext():
                with precision(train, device):
                    loss, targets = task.loss(model, to_device(batch, device))
                loss.backward()
            sums[0] += loss.detach()
            sums[1] += targets
        if world > 1:
            dist.all_reduce(sums)
        grad_norm = scale_gradients(weights, world / sums[1].clamp(min=1), train.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meter.add(sums)

        done = step + 1
        end, logs = done == total_steps, done % train.log_every == 0
        stop = (logs or device.type == "cpu") and bool(sums[3] > 0)  # looking makes a GPU wait
        if end or logs or stop:
            yield meter.row(done, optimizer.param_groups[0]["lr"], grad_norm)
        if evaluate and (end or (train.eval_every and done % train.eval_every == 0)):
            yield {"step": done, **evaluate()}
            model.train()
        if on_checkpoint and (end or stop or (train.checkpoint_every and done % train.checkpoint_every == 0)):
            require_finite(grad_norm, done)
            on_checkpoint(done)
        if stop:
            return


def scale_gradients(weights: list[torch.nn.Parameter], scale: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Turn gradients of a summed loss into those of its mean and clip them, in one pass; gives their norm before."""
    gradients = [p.grad for p in weights if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) * scale
    factor = scale if clip is None else scale * (clip / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor.to(torch.float32))
    return norm


@torch.no_grad()
def mean_loss(
    model: torch.nn.Module, task: Task, batches: Iterable[Tensors], train: Train, device: torch.device, world: int = 1
) -> Row:
    """Loss per target over held-out batches, all workers' together."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in batches:
        with precision(train, device):
            loss, targets = task.loss(model, to_device(batch, device))
        sums += torch.stack([loss.double(), targets.double()])
    if world > 1:
        dist.all_reduce(sums)
    return {"eval_loss": float(sums[0] / sums[1].clamp(min=1))}


def precision(train: Train, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=train.precision == "bf16")


def to_device(batch: Tensors, device: torch.device) -> Tensors:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def tokens(batch: Tensors) -> int:
    """Tokens that a batch makes a model read, padding left out."""
    if "documents" in batch:
        return int((batch["documents"] >= 0).sum())
    seen = batch.get("attention_mask")
    return int(seen.sum() if seen is not None else (batch["labels"] != -100).sum())


def require_finite(value: torch.Tensor, step: int) -> None:
    """A weight that became infinite or NaN once stays so: training on is waste, and saving it is harm."""
    if not torch.isfinite(value):
        raise DivergedError(
            f"training diverged: at step {step} the gradient is {float(value)}; the last checkpoint before it is kept."
            " Lower train.learning_rate, raise train.warmup_steps, or set train.clip_norm"
        )


class Meter:
    """Sums of the steps since the last log row."""

    def __init__(self, device: torch.device, world: int, sums: torch.Tensor | None = None) -> None:
        self.device, self.world, self.waited = device, world, 0.0
        self.sums = torch.zeros(4, dtype=torch.float64, device=device) if sums is None else sums
        self.began = self.since = time.monotonic()

    def next_of(self, batches: Iterator[Tensors]) -> Tensors:
        began = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - began
        return batch

    def add(self, sums: torch.Tensor) -> None:
        self.sums += sums

    def row(self, step: int, learning_rate: float, grad_norm: torch.Tensor) -> Row:
        require_finite(grad_norm, step)
        loss, targets, read, _ = self.sums.tolist()
        now = time.monotonic()
        spent, self.since = now - self.since, now
        self.sums.zero_()
        return {
            "step": step,
            "loss": loss / max(targets, 1),
            "learning_rate": learning_rate,
            "grad_norm": float(grad_norm),
            "tokens_per_s": read / max(spent, 1e-9),
            "elapsed_s": now - self.began,
            **self._most(),
        }

    def _most(self) -> Row:
        """What the worker needed that needed most: time waiting for data since the last row, peak of memory."""
        most = torch.tensor([self.waited, peak_memory(self.device)], dtype=torch.float64, device=self.device)
        self.waited = 0.0
        if self.world > 1:
            dist.all_reduce(most, dist.ReduceOp.MAX)
        return {"data_wait_s": float(most[0]), "memory_bytes": int(most[1])}


def peak_memory(device: torch.device) -> int:
    """Most bytes that were held so far: by tensors on a GPU, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
