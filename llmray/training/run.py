"""Ray Train around the loop: workers that start, report, die and start again; the driver that watches them.

It does not know how a step is taken.  The same command on an unfinished run resumes it, on a finished one returns
its result.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import ray
import ray.train
import torch
from ray.data import ExecutionOptions, ExecutionResources
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from llmray.job.errors import InterruptedWorkError, LlmrayError
from llmray.job.results import TrainResult
from llmray.job.schema import Job
from llmray.job.training import Scale
from llmray.store import folder, journal, place
from llmray.store.journal import Progress
from llmray.stream.errors import cause_of, chain
from llmray.training import failure
from llmray.training.attempt import Attempt, Seat, Work, identity, within_memory
from llmray.training.plan import plan
from llmray.training.stopping import flag, interrupts
from llmray.training.telling import Watch
from llmray.training.watch import EndOnOurErrors, Journal

Outcome: TypeAlias = tuple[dict[str, float], int | None]
"""The last value of each metric, and the step whose weights the model has (None: there is none yet)."""
POLL_S = 0.25
NOTICE_EVERY_S = 2.0
"""Ray itself looks for notices every 5 s."""

TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # 2 s by default: the time to see that a worker ended or died
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a job mean the same to its workers
}
ELASTIC_SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",  # 60 s by default: the time to see that a lost node's room is gone
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
    with Watch(job, label, progress) as watch:
        work, datasets = plan(job, resumed=state == "resume")
        folder.begin(job.output, job)
        watch.total = work.total_steps
        if job.scale.in_process:
            metrics, model_step = _here(work, datasets, watch)
        else:
            metrics, model_step = on_workers(work, datasets, watch.take, keep=True)
        if model_step is None:
            raise InterruptedWorkError(
                f"stopped after step {metrics.get('step', 0):.0f}; the same command goes on from there, and so does\n"
                f"  {folder.command(job.output)}"
            )
        result = TrainResult(
            run=job.output,
            model=place.join(job.output, "model"),
            steps=int(metrics["step"]),
            model_step=model_step,
            metrics=metrics,
            seconds=time.monotonic() - began,
        )
        failure.clear(job.output)
        folder.mark_done(job.output, result)
    best = f"  the model is that of step {model_step}" if model_step < result.steps else ""
    progress.done(label, journal.spoken({k: metrics[k] for k in ("loss", "eval_loss") if k in metrics}) + best)
    return result


def _here(work: Work, datasets: Mapping[str, Any], watch: Watch) -> Outcome:
    for ds in datasets.values():  # readers beyond these would only take the cores that learn
        ds.context.execution_options.resource_limits = ExecutionResources(cpu=max(1, (os.cpu_count() or 1) // 2))
    shards = {name: _ordered(ds).iterator() for name, ds in datasets.items()}
    with within_memory(Seat(), work.job.train):
        attempt = Attempt(work, Seat(), shards, _checkpoints(work), watch.warn)
        watch.take([{"began_at": attempt.start_step}])
        with interrupts() as asked:
            for row in attempt.rows(asked.is_set):
                watch.take([row])
    return _finish(work, attempt)


def _finish(work: Work, attempt: Attempt) -> Outcome:
    done = attempt.over and attempt.seat.rank == 0
    step = attempt.save_model(place.join(work.job.output, "model")) if done else None
    return attempt.metrics, step


def _checkpoints(work: Work) -> str:
    return place.join(work.job.output, folder.CHECKPOINTS)


def _ordered(ds: Any) -> Any:
    ds.context.execution_options.preserve_order = True
    return ds


def on_workers(
    work: Work, datasets: Mapping[str, Any], take: Callable[[list[dict[str, Any]]], None], *, keep: bool = False
) -> Outcome:
    """Run on Ray Train workers while this thread takes what they tell and listens for Ctrl-C.

    `keep`: save checkpoints and the model under the job's output.
    """
    scale = work.job.scale
    for name, value in (TRAIN_SETTINGS | (ELASTIC_SETTINGS if scale.min_workers else {})).items():
        os.environ.setdefault(name, value)
    if scale.address is None:  # nobody takes this machine away with a warning
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    held_out = shares(datasets["eval"], scale.workers) if "eval" in datasets else None
    told = Journal.options(label_selector=here()).remote()  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="llmray-train-") as scratch, interrupts() as asked:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"told": ray.put((work, held_out)), "journal": told, "keep": keep},
            scaling_config=ScalingConfig(
                num_workers=(scale.min_workers, scale.workers) if scale.min_workers else scale.workers,
                use_gpu=scale.gpus_per_worker > 0,
                resources_per_worker=resources(scale),
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


def _result(future: Future[Any], scale: Scale) -> Outcome:
    try:
        metrics, step = future.result().return_value
        return metrics, step
    except ray.train.TrainingFailedError as error:
        if cause := cause_of(error):
            raise cause from None
        if isinstance(error, ray.train.WorkerGroupError):
            raise failure.of_workers(error.worker_failures, scale.max_failures) from error
        root = chain(error)[-1]
        raise LlmrayError(
            f"training failed after {scale.max_failures} restarts: {type(root).__name__}: {root}"
        ) from error


def _worker(config: dict[str, Any]) -> Outcome:
    """What one Ray Train worker does."""
    context = ray.train.get_context()
    seat = Seat(context.get_world_rank(), context.get_world_size(), get_device())
    work, held_out = ray.get(config["told"])
    with within_memory(seat, work.job.train):
        return _seated(seat, work, held_out, config)


def _seated(seat: Seat, work: Work, held_out: list[Any] | None, config: dict[str, Any]) -> Outcome:
    told = config["journal"]
    shards: dict[str, Any] = {} if work.portions else {"train": ray.train.get_dataset_shard("train")}
    if held_out:  # in as many shares as there are workers at most
        mine, *others = held_out[seat.rank :: seat.world]
        shards["eval"] = (mine.union(*others) if others else mine).iterator()
    torch.set_num_threads(max(1, int(work.job.scale.cpus_per_worker)))
    kept = _checkpoints(work) if config["keep"] else None
    attempt = Attempt(work, seat, shards, kept, lambda text: told.tell.remote({"warning": text}))
    with notices(work.job.scale) as noticed:
        if seat.rank:
            for _ in attempt.rows():
                pass
            return attempt.metrics, None
        ray.get(told.tell.remote({"began_at": attempt.start_step, "workers": seat.world}))
        with flag(lambda: ray.get(told.stopping.remote())) as asked:
            for row in attempt.rows(asked.is_set, noticed.is_set):
                told.tell.remote(row)
    ray.get(told.stopping.remote())  # calls arrive in order: all rows are told
    return _finish(work, attempt) if config["keep"] else (attempt.metrics, None)


def notices(scale: Scale) -> AbstractContextManager[threading.Event]:
    """An event that is set when a worker's machine is about to be taken away; Ray has all workers ask for it."""
    if scale.address is None:
        return nullcontext(threading.Event())
    return flag(lambda: ray.train.get_preemption_info() is not None, NOTICE_EVERY_S)


def here() -> dict[str, str]:
    """Selects the driver's machine, which a run does not outlive; another one may be lost."""
    return {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}


def resources(scale: Scale) -> dict[str, float]:
    """What Ray reserves for a worker; on a machine that has no CPU to spare, a little less, so that data can flow."""
    spare = (ray.cluster_resources().get("CPU", 1.0) - 1) / scale.workers
    cpus = scale.cpus_per_worker if scale.cpus_per_worker <= spare or scale.address else max(0.1, spare)
    return {"CPU": cpus} | ({"GPU": scale.gpus_per_worker} if scale.gpus_per_worker else {})
