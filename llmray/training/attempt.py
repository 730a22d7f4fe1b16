"""One worker's part of a run: model, optimizer, batches and checkpoints put together for the loop.

It does not know who started it: a Ray Train worker, a trial of a sweep, or the program itself.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

from llmray.corpus.source import is_store
from llmray.job.errors import StoreError
from llmray.job.schema import Job
from llmray.job.training import Train
from llmray.model.load import build, save
from llmray.store import folder, place
from llmray.stream.batches import batches
from llmray.stream.feed import Feed, Portion
from llmray.tasks.base import Task, Tensors
from llmray.training import flops, parallel
from llmray.training.attention import set_attention
from llmray.training.checkpoint import WARN, Saver, best_good, load_state, load_weights, manifest_of, newest_good
from llmray.training.loop import Row, fit, loss_scale, mean_loss, out_of_patience, with_patience
from llmray.training.lora import adapted
from llmray.training.optim import optimizer
from llmray.training.stopping import never
from llmray.training.thrift import compiled, keep_freed_memory, recomputing

Outcome: TypeAlias = tuple[dict[str, float], int | None]
"""The last value of each metric, and the step whose weights the model has (None: there is none yet)."""
LINEAGE = "lineage.json"
"""Beside the weights: the job, the step, the rows and, of prepared stores, which they were."""

CPU = torch.device("cpu")
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names that torch gives them on Intel, AMD and ARM."""
HELD_OUT_BYTES = 256 << 20
"""Validation batches that a worker keeps in memory; more are streamed anew for every validation."""
MOST_ROWS = 128
"""Rows of a batch whose places an error tells."""


@dataclass(frozen=True)
class Work:
    """What every worker is told: `job` with its model settled, the task with its processor, and when to end."""

    job: Job
    task: Task
    total_steps: int
    portions: tuple[Portion, ...] = ()
    """Prepared stores to learn from, which each worker reads by itself; none: the workers are streamed to."""
    given: Job | None = None
    """The job as it was given, to which checkpoints belong."""

    @property
    def checkpoints(self) -> str:
        return place.join(self.job.output, folder.CHECKPOINTS)


@dataclass(frozen=True)
class Seat:
    """Which worker this is."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU


class OtherJobError(StoreError):
    """The newest checkpoint is of another job than this, or of other data."""


class Attempt:
    """Everything between a worker's start and its end; `rows()` does the learning."""

    def __init__(
        self,
        work: Work,
        seat: Seat,
        shards: Mapping[str, Any],
        checkpoints: str | None,
        warn: Callable[[str], None] = WARN,
    ) -> None:
        """Build the model, and take up the newest whole checkpoint under `checkpoints` (None: keep none)."""
        assert work.job.model is not None
        train = with_precision(work.job.train, seat)
        self.work, self.seat, self.train, self.shards = work, seat, train, shards
        self.checkpoints, self.warn = checkpoints, warn
        torch.manual_seed(train.seed)
        keep_freed_memory()
        self.model = build(work.job.model, work.task)
        if not self.sharded:  # which moves one block at a time: the whole may be more than the device holds
            self.model.to(seat.device)
        set_attention(self.model, work.task, seat.device)
        self.learner = parallel.Learner(self.model, work.task)
        self.optimizer = self._prepared()
        self.scaler = loss_scale(train, seat.device)
        torch.manual_seed((train.seed + 1) * 10_007 + seat.rank)
        keep, best = train.keep_checkpoints, train.keep_best
        self.saver = Saver(checkpoints, keep, keep_best=best, warn=warn) if checkpoints else None
        self.metrics: Row = {}
        self.unlogged = torch.zeros(3, dtype=torch.float64, device=seat.device)
        self.validated_step = 0
        self.prepared = False
        """Whether it has saved since it was forewarned."""
        self.token_flops = flops.per_token(self.model, work.job.task)
        self.start_step = self._resume(checkpoints) if checkpoints else 0

    def rows(self, should_stop: Callable[[], bool] = never, forewarned: Callable[[], bool] = never) -> Iterator[Row]:
        """Train to the end or until asked to stop, yielding log and validation rows; once `forewarned` that a worker
        will be lost, save at the next step."""
        seat, train, outer = self.seat, self.train, self.outer
        if outer:  # between two meetings there is no model of all workers
            outer.wish, should_stop = should_stop, lambda: outer.stopping
            forewarned = never
        self.forewarned = forewarned
        share = train.batch_size // (seat.world * train.accumulate)
        held_out = HeldOut(self.shards["eval"], self.work.task, share) if "eval" in self.shards else None
        with closing(self._batches(share)) as read:  # before its Ray ends, however it comes to leave
            for row in fit(
                self._replicated(),
                read,
                train,
                0 if self.over else self.work.total_steps,
                optimizer=self.optimizer,
                device=seat.device,
                world=seat.world,
                alone=outer is not None,
                scaler=self.scaler,
                start_step=self.start_step,
                unlogged=self.unlogged,
                evaluate=(lambda: self._validate(held_out)) if held_out else None,
                on_checkpoint=self._checkpoint if self.saver else None,
                should_save=lambda: not self.prepared and forewarned(),
                should_stop=should_stop,
                batch_of=self._batch_of,
            ):
                if "eval_loss" in row:
                    self.validated_step = int(row["step"])
                elif self.token_flops and (peak := flops.peak(seat.device, train.precision)):
                    row["flops_utilisation"] = self.token_flops * row["tokens_per_s"] / (peak * seat.world)
                self.metrics |= row
                yield row
        if self.saver:
            self.saver.wait()
        if self.saver and self.sharded:
            self.whole = self.model.state_dict()  # while all workers are here

    @property
    def over(self) -> bool:
        """Whether there is nothing left to learn."""
        return over(self.work, self.metrics)

    def finish(self) -> Outcome:
        """Write the model, if there is nothing left to learn and this is the first worker."""
        done = self.over and self.seat.rank == 0
        step = self._save_model(place.join(self.work.job.output, "model")) if done else None
        return self.metrics, step

    def _save_model(self, output: str) -> int:
        """Write the model in Hugging Face layout; gives the step that its weights are from."""
        step, model = int(self.metrics["step"]), self.model
        if self.sharded:
            assert self.work.job.model is not None
            model = build(self.work.job.model, self.work.task)
            model.load_state_dict(self.whole)
        if self.train.final_model == "best" and self.checkpoints and (best := best_good(self.checkpoints, self.warn)):
            step = load_weights(best, model)
            self.metrics["eval_loss"] = manifest_of(best)["eval_loss"]
        whole = self.additions.merge_and_unload() if self.train.lora else model
        descent = json.dumps(self._about(step) | {"step": step, "order": self._order}, indent=2)
        place.patiently(lambda: save(whole, self.work.task, output), f"saving {output}", self.warn)
        place.patiently(lambda: place.write_text(place.join(output, LINEAGE), descent), f"saving {output}", self.warn)
        return step

    def _batches(self, share: int) -> Generator[Tensors]:
        """`share` rows at a time, from where the run stands."""
        if self.work.portions:
            return (self.work.task.collate(columns) for columns in self._feed(self.start_step))
        return batches(self.shards["train"], self.work.task, share, skip=self.start_step * self.train.accumulate)

    def _batch_of(self, step: int) -> str:
        """Where the rows that all workers together learn from in a step are."""
        stop = step * self.train.batch_size
        start = stop - self.train.batch_size
        if not self.work.portions:
            return f"rows {start + 1} to {stop} of data.train as they were streamed, all passes counted"
        files = self._feed(0).written(start, min(stop, start + MOST_ROWS))
        told = "; ".join(f"{path}, rows {', '.join(map(str, sorted(rows)))}" for path, rows in files.items())
        return told + (f"; and {self.train.batch_size - MOST_ROWS} more" if self.train.batch_size > MOST_ROWS else "")

    @cached_property
    def _order(self) -> str | None:
        """What a number of steps means in the stores; None where the workers are streamed to."""
        return self._feed(0).identity if self.work.portions else None

    def _feed(self, step: int) -> Feed:
        """The worker's rows of the stores after `step` steps."""
        seat, train = self.seat, self.train
        return Feed(
            self.work.portions,
            train.batch_size // (seat.world * train.accumulate),
            rank=seat.rank,
            world=seat.world,
            seed=train.seed,
            shuffle=bool(self.work.job.data.shuffle_rows),
            start=step * train.batch_size,
        )

    @property
    def sharded(self) -> bool:
        return self.work.job.scale.parallel == "fsdp" and self.seat.world > 1

    @property
    def outer(self) -> parallel.LocalSGD | None:
        return self.optimizer if isinstance(self.optimizer, parallel.LocalSGD) else None

    def _prepared(self) -> torch.optim.Optimizer:
        """The optimiser, after what the job does to the model before it learns."""
        train, scale, seat = self.train, self.work.job.scale, self.seat
        if train.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        if train.lora:
            self.additions = adapted(self.model, train.lora)
        if train.activation_checkpointing:
            recomputing(self.model)
        if train.compile:
            compiled(self.learner, in_blocks=self.sharded)
        if self.sharded:
            parallel.shard(self.learner, seat.world, seat.device, half=train.precision == "bf16")
            return parallel.with_whole_state(optimizer(self.model, train))
        if scale.parallel == "local_sgd" and seat.world > 1:
            return parallel.LocalSGD(optimizer(self.model, train), scale.meetings, seat.world)
        return optimizer(self.model, train)

    def _replicated(self) -> torch.nn.Module:
        if self.seat.world == 1 or self.sharded or self.outer:
            return self.learner
        return parallel.replicated(self.learner, self.seat.device)

    def _validate(self, held_out: "HeldOut") -> Row:
        if self.outer:
            self.outer.meet()
        row = mean_loss(self.learner, held_out, self.train, self.seat.device, self.seat.world)
        return with_patience(row, self.metrics) if self.train.patience else row

    def _resume(self, root: str) -> int:
        found = agreed(newest_good(root, self.warn) if self.seat.rank == 0 else None, self.seat)
        if found is None:
            return 0
        if not place.exists(found):
            raise StoreError(f"{found}: cannot be seen from every worker's machine; use an object store as output")
        self._require_same_job(found)
        step, extra = load_state(found, self.model, self.optimizer)
        if self.work.portions and extra.get("order") != self._order:
            raise OtherJobError(
                f"{found}: was saved while rows came in another order: a store was prepared anew, or weights or"
                " data.shuffle_rows changed; choose another `output`"
            )
        if len(extra["random"]) == self.seat.world:  # else each worker goes on from its seed
            set_random_state(extra["random"][self.seat.rank], self.seat.device)
        self.metrics = dict(extra["metrics"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(extra["scaler"])
        if not self.outer:  # whose workers have sums of their own
            self.unlogged[:2] = extra["unlogged"][:2]  # of loss and targets; tokens and time are counted anew
        return step

    def _require_same_job(self, found: str) -> None:
        old, given = manifest_of(found).get("job"), self.work.given
        if old and given and (differing := folder.differences(old, given, identity(given), found)):
            raise OtherJobError(f"{found}: was saved by another job:\n{differing}\nSet these back, or remove it")

    def _checkpoint(self, step: int) -> None:
        if self.forewarned() and not self.prepared:
            self.warn(f"a machine is about to be taken away; saving step {step}")
            self.prepared = True
        if self.outer:
            self.outer.meet()
        states = gathered(random_state(self.seat.device), self.seat)
        if self.seat.rank == 0 and self.saver:
            extra = {"random": states, "metrics": self.metrics, "order": self._order, "unlogged": self.unlogged}
            extra["scaler"] = self.scaler.state_dict()
            self.saver.save(self.model, self.optimizer, step, extra, self._about(step))
        elif self.sharded:  # the first worker's state dicts hold every worker's share
            self.model.state_dict(), self.optimizer.state_dict()

    def _about(self, step: int) -> dict[str, Any]:
        """What a checkpoint's manifest tells: where in the data it is, who saved it, what it is worth."""
        about: dict[str, Any] = {"rows": step * self.train.batch_size, "workers": self.seat.world}
        if self.validated_step == step:
            about["eval_loss"] = self.metrics["eval_loss"]
        if given := self.work.given:
            about["job"] = given.model_dump(mode="json", by_alias=True, include=set(folder.SECTIONS))
        return about


def over(work: Work, metrics: Row) -> bool:
    """Whether a run whose last rows held these metrics is at its end."""
    return metrics.get("step", 0) >= work.total_steps or out_of_patience(metrics, work.job.train)


class HeldOut:
    """A worker's validation batches, the same at every pass; few enough are read only once."""

    def __init__(self, shard: Any, task: Task, rows: int) -> None:
        self.shard, self.task, self.rows = shard, task, rows
        self.kept: list[Tensors] | None = None

    def __iter__(self) -> Iterator[Tensors]:
        if self.kept is not None:
            yield from self.kept
            return
        seen: list[Tensors] = []
        size = 0
        for batch in batches(self.shard, self.task, self.rows, epochs=1):
            size += sum(tensor.nbytes for tensor in batch.values())
            seen.append(batch) if size <= HELD_OUT_BYTES else seen.clear()
            yield batch
        self.kept = seen if size <= HELD_OUT_BYTES else None


def identity(job: Job) -> tuple[str, ...]:
    """Sections that decide what comes out; stored rows come in the same order to any number of workers, and the same
    is learned from them unless each trains alone."""
    any_scale = all(map(is_store, job.data.train)) and job.scale.parallel != "local_sgd"
    return tuple(section for section in folder.SECTIONS if section != "scale" or not any_scale)


def with_precision(train: Train, seat: Seat) -> Train:
    """The section with `precision: auto` settled, the same for every worker."""
    if train.precision != "auto":
        return train
    native = all(gathered(multiplies_bf16(seat.device), seat))
    return train.model_copy(update={"precision": "bf16" if native else "fp32"})


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16, rather than emulating them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name) for name in BF16_INSTRUCTIONS)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def gathered(value: Any, seat: Seat) -> list[Any]:
    """Every worker's value, by rank."""
    if seat.world == 1:
        return [value]
    values: list[Any] = [None] * seat.world
    dist.all_gather_object(values, value)
    return values


def agreed(value: Any, seat: Seat) -> Any:
    """Rank 0's value."""
    return gathered(value, seat)[0]
