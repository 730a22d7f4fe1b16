"""The training loop: forward, backward, clip, step, log, validate, save.  Plain PyTorch.

It does not know what the task is, where batches come from or where checkpoints go.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from llmray.job.errors import LlmrayError
from llmray.job.training import Train
from llmray.tasks.base import Tensors
from llmray.training.optim import schedule
from llmray.training.parallel import in_step, quiet
from llmray.training.stopping import never

Row: TypeAlias = dict[str, float]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE = 16.0
"""What a loss in fp16 is multiplied by at first: little, because it is a sum over targets and no mean."""


class DivergedError(LlmrayError):
    """Loss or gradient is no longer a number, or the loss larger than the job allows; more steps do not mend it."""


def fit(
    learner: torch.nn.Module,
    batches: Iterator[Tensors],
    train: Train,
    total_steps: int,
    *,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str = "cpu",
    world: int = 1,
    alone: bool = False,
    scaler: torch.amp.GradScaler | None = None,
    start_step: int = 0,
    unlogged: torch.Tensor | None = None,
    evaluate: Callable[[], Row] | None = None,
    on_checkpoint: Callable[[int], None] | None = None,
    should_save: Callable[[], bool] = never,
    should_stop: Callable[[], bool] = never,
    batch_of: Callable[[int], str] | None = None,
) -> Iterator[Row]:
    """Take the steps from `start_step` to `total_steps`, yielding a row at each log and each validation.

    `learner` gives a batch's summed loss and number of targets (see `Learner`).  Each worker calls this with its own
    batches, `train.accumulate` a step; when one of them `should_stop`, all save and end after the same step; when one
    `should_save`, all save.  Workers that step `alone` add up nothing but their log rows; to ask them all at once is up
    to `should_stop`.  `unlogged` holds the sums of steps since the last row, to begin with and from then on, `scaler`
    what `loss_scale` gives; `batch_of` tells where in the data a step's batch is.

    Raises `DivergedError` at the next row or checkpoint after a step that `Broken` takes for one.
    """
    device, factor = torch.device(device), schedule(train, total_steps)
    weights = [p for p in learner.parameters() if p.requires_grad]
    scaler = scaler or loss_scale(train, device)
    together = 1 if alone else world
    meter, broken = Meter(device, world, alone, unlogged), Broken(device, train.max_loss)
    learner.train()
    for step in range(start_step, total_steps):
        for group in optimizer.param_groups:
            group["lr"] = train.learning_rate * factor(step)
        sums = torch.zeros(5, dtype=torch.float64, device=device)  # loss, targets, tokens, asked to stop, to save
        sums[3], sums[4] = float(should_stop()), float(should_save())
        for part in range(train.accumulate):
            batch = meter.next_of(batches)
            sums[2] += tokens(batch)
            last = part == train.accumulate - 1
            with nullcontext() if last else quiet(learner):
                with precision(train, device):
                    loss, targets = learner(to_device(batch, device))
                scaler.scale(loss).backward()
            sums[0] += loss.detach()
            sums[1] += targets
        if together > 1:
            dist.all_reduce(sums)
        scaler.unscale_(optimizer)
        grad_norm = scale_gradients(weights, together / sums[1].clamp(min=1), train.clip_norm)
        scaler.step(optimizer)  # not where a number was beyond fp16; the next scale is lower
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        meter.add(sums[:3])
        if scaler.is_enabled():  # a gradient beyond fp16 is no divergence, a loss that is no number is
            grad_norm = torch.where(torch.isfinite(sums[0]), grad_norm.nan_to_num(posinf=0.0, nan=0.0), sums[0])

        done = step + 1
        broken.add(done, sums[0] / sums[1].clamp(min=1), grad_norm)
        end, logs = done == total_steps, done % train.log_every == 0
        looks = logs or device.type == "cpu"  # it makes a GPU wait
        stop, save = (sums[3:] > 0).tolist() if looks else (False, False)
        if end or logs or stop:
            broken.refuse(batch_of)
            yield meter.row(done, optimizer.param_groups[0]["lr"], grad_norm)
        if evaluate and (end or (train.eval_every and done % train.eval_every == 0)):
            row = {"step": done, **evaluate()}
            yield row
            learner.train()
            stop = stop or out_of_patience(row, train)
        save = save or end or stop or bool(train.checkpoint_every and done % train.checkpoint_every == 0)
        if on_checkpoint and save:
            broken.refuse(batch_of)
            on_checkpoint(done)
        if stop:
            return


def loss_scale(train: Train, device: torch.device) -> torch.amp.GradScaler:
    """What a loss in fp16 is multiplied by, so that its gradients stay in range; 1 in any other precision."""
    return torch.amp.GradScaler(device.type, FIRST_SCALE, enabled=train.precision == "fp16")


def scale_gradients(weights: list[torch.nn.Parameter], scale: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Turn gradients of a summed loss into those of its mean and clip them, in one pass; gives their norm before."""
    gradients = [p.grad for p in weights if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    norm = (norm.full_tensor() if isinstance(norm, DTensor) else norm) * scale  # a sharded model's, of all workers
    factor = scale if clip is None else scale * (clip / (norm + 1e-6)).clamp(max=1.0)
    own = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    torch._foreach_mul_(own, factor.to(torch.float32))
    return norm


@torch.no_grad()
def mean_loss(
    learner: torch.nn.Module, batches: Iterable[Tensors], train: Train, device: torch.device, world: int = 1
) -> Row:
    """Loss per target over held-out batches, all workers' together."""
    learner.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for batch, counts in in_step(batches, learner, device):
        with precision(train, device):
            loss, targets = learner(to_device(batch, device))
        sums += torch.stack([loss.double(), targets.double()]) * counts
    if world > 1:
        dist.all_reduce(sums)
    return {"eval_loss": float(sums[0] / sums[1].clamp(min=1))}


def with_patience(row: Row, before: Row) -> Row:
    """A validation's row, with the best `eval_loss` so far and the validations since it; `before`: the last row."""
    best = before.get("best_eval_loss", math.inf)
    since = 0 if row["eval_loss"] < best else before.get("evals_since_best", 0) + 1
    return row | {"best_eval_loss": min(best, row["eval_loss"]), "evals_since_best": since}


def out_of_patience(row: Row, train: Train) -> bool:
    """Whether the job's `patience` ends a run here."""
    return train.patience is not None and row.get("evals_since_best", 0) >= train.patience


def precision(train: Train, device: torch.device) -> torch.autocast:
    dtype = DTYPES.get(train.precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def to_device(batch: Tensors, device: torch.device) -> Tensors:
    if device.type == "cuda":  # from other memory a copy waits until the GPU has done all that it was told before
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def tokens(batch: Tensors) -> int:
    """Tokens that a batch makes a model read, padding left out."""
    if "documents" in batch:
        return int((batch["documents"] >= 0).sum())
    seen = batch.get("attention_mask")
    return int(seen.sum() if seen is not None else (batch["labels"] != -100).sum())


class Broken:
    """The first step whose loss or gradient was no number, or its loss above `most`, kept where they are: to look makes
    a GPU wait.

    A weight that became infinite or NaN once stays so: training on is waste, and saving it is harm.
    """

    def __init__(self, device: torch.device, most: float | None) -> None:
        self.most = math.inf if most is None else most
        self.first = torch.zeros(3, dtype=torch.float64, device=device)
        """Step (0: none), loss and gradient."""

    def add(self, step: int, loss: torch.Tensor, gradient: torch.Tensor) -> None:
        found = torch.stack([torch.full_like(loss, step), loss, gradient.to(loss)])
        well = found.isfinite().all() & (loss <= self.most)
        self.first = torch.where((self.first[0] > 0) | well, self.first, found)

    def refuse(self, batch_of: Callable[[int], str] | None) -> None:
        """Raise `DivergedError` if there was one."""
        step, loss, gradient = self.first.tolist()
        if not step:
            return
        batch = f"\nIts batch: {batch_of(int(step))}" if batch_of else ""
        wrong = f"loss ({loss:g}) or gradient ({gradient:g}) is no number"
        if math.isfinite(loss) and math.isfinite(gradient):
            wrong = f"loss ({loss:g}) is above train.max_loss ({self.most:g}), which may be too low"
        raise DivergedError(
            f"training diverged: at step {step:.0f} for the first time {wrong}; the last checkpoint before it is kept."
            f" Lower train.learning_rate, raise train.warmup_steps, or set train.clip_norm{batch}"
        )


class Meter:
    """Sums of the steps since the last log row; those of workers that step `alone` are added up only then."""

    def __init__(self, device: torch.device, world: int, alone: bool, sums: torch.Tensor | None = None) -> None:
        self.device, self.world, self.alone, self.waited = device, world, alone, 0.0
        self.sums = torch.zeros(3, dtype=torch.float64, device=device) if sums is None else sums
        self.began = self.since = time.monotonic()

    def next_of(self, batches: Iterator[Tensors]) -> Tensors:
        began = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - began
        return batch

    def add(self, sums: torch.Tensor) -> None:
        self.sums += sums

    def row(self, step: int, learning_rate: float, grad_norm: torch.Tensor) -> Row:
        if self.alone and self.world > 1:
            dist.all_reduce(self.sums)
        loss, targets, read = self.sums.tolist()
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
