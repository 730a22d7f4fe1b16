"""Ray Train around the loop: workers that start, report, die and start again; the driver that watches them.

It does not know how a step is taken.  The same command on an unfinished run resumes it, on a finished one returns
its result.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import ray
import ray.train
import torch
from ray.data import ExecutionOptions, ExecutionResources
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from llmray.corpus.source import is_store
from llmray.job.errors import InterruptedWorkError, LlmrayError
from llmray.job.results import TrainResult
from llmray.job.schema import Job, Scale
from llmray.store import folder, journal, place
from llmray.store.journal import Progress
from llmray.stream.errors import cause_of, chain
from llmray.training.attempt import Attempt, Seat, Work, over
from llmray.training.plan import plan
from llmray.training.stopping import flag, interrupts
from llmray.training.watch import EndOnOurErrors, Journal

POLL_S = 0.25

TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # 2 s by default: the time to see that a worker ended or died
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a job mean the same to its workers
}


def train(job: Job, progress: Progress) -> TrainResult:
    """Train as the job says, or return the result of having done so; everything is kept under `job.output`."""
    began = time.monotonic()
    job = job.model_copy(update={"output": folder.settled(job.output)})
    label = f"train {place.join(job.output).rsplit('/', 1)[-1]}"
    state = folder.claim(job.output, job, identity(job))
    if state == "done":
        progress.note(f"✓ {label}  is done already: {job.output}")
        return TrainResult(**folder.result_of(job.output))
    progress.note(f"{label}: preparing")
    work, datasets = plan(job, resumed=state == "resume")
    folder.begin(job.output, job)
    watch = Watch(job.output, label, work.total_steps, progress)
    if job.scale.in_process:
        metrics = _here(work, datasets, watch)
    else:
        metrics = on_workers(work, datasets, watch.take, keep=True)
    if not over(work, metrics):
        raise InterruptedWorkError(
            f"stopped after step {metrics.get('step', 0):.0f}; the same command goes on from there"
        )
    result = TrainResult(
        run=job.output,
        model=place.join(job.output, "model"),
        steps=int(metrics["step"]),
        metrics=metrics,
        seconds=time.monotonic() - began,
    )
    folder.mark_done(job.output, result)
    progress.done(label, journal.spoken({k: metrics[k] for k in ("loss", "eval_loss") if k in metrics}))
    return result


def identity(job: Job) -> tuple[str, ...]:
    """Sections that decide what comes out; stored rows come in the same order to any number of workers, and the same
    is learned from them unless each trains alone."""
    any_scale = all(map(is_store, job.data.train)) and job.scale.parallel != "local_sgd"
    return tuple(s for s in folder.SECTIONS if s != "scale" or not any_scale)


class Watch:
    """Takes the rows that a run tells: appends them to `metrics.jsonl`, shows them."""

    def __init__(self, output: str, label: str, total_steps: int, progress: Progress) -> None:
        self.path = place.join(output, "metrics.jsonl")
        self.label, self.total, self.progress = label, total_steps, progress
        self.started = False

    def take(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if "began_at" in row:
                self._begin(row["began_at"])
                continue
            journal.append(self.path, [row])
            shown = {name: row[name] for name in ("loss", "eval_loss", "tokens_per_s") if name in row}
            self.progress.update(self.label, row["step"], **shown)

    def _begin(self, step: int) -> None:
        """A run that resumes tells again what came after its checkpoint."""
        known = journal.read(self.path)
        kept = [row for row in known if float(str(row["step"])) <= step]
        if len(kept) < len(known):
            place.remove(self.path)
            journal.append(self.path, kept)
        if not self.started:
            self.progress.start(self.label, self.total)
            self.started = True
        if step:
            self.progress.note(f"{self.label}: resumed at step {step}")


def _here(work: Work, datasets: Mapping[str, Any], watch: Watch) -> dict[str, float]:
    for ds in datasets.values():  # readers beyond these would only take the cores that learn
        ds.context.execution_options.resource_limits = ExecutionResources(cpu=max(1, (os.cpu_count() or 1) // 2))
    shards = {name: _ordered(ds).iterator() for name, ds in datasets.items()}
    attempt = Attempt(work, Seat(), shards, _checkpoints(work))
    watch.take([{"began_at": attempt.start_step}])
    with interrupts() as asked:
        for row in attempt.rows(asked.is_set):
            watch.take([row])
    return _finish(work, attempt)


def _finish(work: Work, attempt: Attempt) -> dict[str, float]:
    if attempt.over and attempt.seat.rank == 0:
        attempt.save_model(place.join(work.job.output, "model"))
    return attempt.metrics


def _checkpoints(work: Work) -> str:
    return place.join(work.job.output, folder.CHECKPOINTS)


def _ordered(ds: Any) -> Any:
    ds.context.execution_options.preserve_order = True
    return ds


def on_workers(
    work: Work, datasets: Mapping[str, Any], take: Callable[[list[dict[str, Any]]], None], *, keep: bool = False
) -> dict[str, float]:
    """Run on Ray Train workers while this thread takes what they tell and listens for Ctrl-C.

    `keep`: save checkpoints and the model under the job's output.
    """
    for name, value in TRAIN_SETTINGS.items():
        os.environ.setdefault(name, value)
    if work.job.scale.address is None:  # nobody takes this machine away with a warning
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    held_out = shares(datasets["eval"], work.job.scale.workers) if "eval" in datasets else None
    scale, told = work.job.scale, Journal.remote()  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="llmray-train-") as scratch, interrupts() as asked:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"told": ray.put((work, held_out)), "journal": told, "keep": keep},
            scaling_config=ScalingConfig(
                num_workers=scale.workers, use_gpu=scale.gpus_per_worker > 0, resources_per_worker=resources(scale)
            ),
            run_config=RunConfig(
                name="train",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=scale.max_failures),
                callbacks=[EndOnOurErrors()],
            ),
            datasets={name: ds for name, ds in datasets.items() if name == "train"},
            dataset_config=DataConfig(execution_options=ExecutionOptions(preserve_order=True)),
        )
        pool = ThreadPoolExecutor(1)  # in the main thread Ray would take Ctrl-C over
        future = pool.submit(trainer.fit)
        pool.shutdown(wait=False)
        while not future.done():
            if asked.is_set():
                ray.get(told.ask_to_stop.remote())
            time.sleep(POLL_S)
            take(ray.get(told.take.remote()))
        take(ray.get(told.take.remote()))
        return _result(future, scale)


def shares(held_out: Any, workers: int) -> list[Any]:
    """Validation rows, encoded once, in one nearly equal share for each worker.

    Not streamed: that would drop rows to make shares exactly equal, and run another coordinator all the while.
    """
    made = _ordered(held_out).materialize()
    rows = made.count()
    return made.split_at_indices([rows * i // workers for i in range(1, workers)]) if workers > 1 else [made]


def _result(future: Future[Any], scale: Scale) -> dict[str, float]:
    try:
        return dict(future.result().return_value)
    except ray.train.TrainingFailedError as error:
        if cause := cause_of(error):
            raise cause from None
        root = chain(error)[-1]
        raise LlmrayError(
            f"training failed after {scale.max_failures} restarts: {type(root).__name__}: {root}\n"
            "The newest checkpoint is kept; the same command goes on from there"
        ) from error


def _worker(config: dict[str, Any]) -> dict[str, float]:
    """What one Ray Train worker does."""
    context, told = ray.train.get_context(), config["journal"]
    seat = Seat(context.get_world_rank(), context.get_world_size(), get_device())
    work, held_out = ray.get(config["told"])
    shards: dict[str, Any] = {} if work.portions else {"train": ray.train.get_dataset_shard("train")}
    if held_out:
        shards["eval"] = held_out[seat.rank].iterator()
    torch.set_num_threads(max(1, int(work.job.scale.cpus_per_worker)))
    attempt = Attempt(work, seat, shards, _checkpoints(work) if config["keep"] else None)
    if seat.rank:
        for _ in attempt.rows():
            pass
        return attempt.metrics
    ray.get(told.tell.remote({"began_at": attempt.start_step}))
    with flag(lambda: ray.get(told.stopping.remote())) as asked:
        for row in attempt.rows(asked.is_set):
            told.tell.remote(row)
    ray.get(told.stopping.remote())  # calls arrive in order: all rows are told
    return _finish(work, attempt) if config["keep"] else attempt.metrics


def resources(scale: Scale) -> dict[str, float]:
    """What Ray reserves for a worker; on a machine that has no CPU to spare, a little less, so that data can flow."""
    spare = (ray.cluster_resources().get("CPU", 1.0) - 1) / scale.workers
    cpus = scale.cpus_per_worker if scale.cpus_per_worker <= spare or scale.address else max(0.1, spare)
    return {"CPU": cpus} | ({"GPU": scale.gpus_per_worker} if scale.gpus_per_worker else {})
