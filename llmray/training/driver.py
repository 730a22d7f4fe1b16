"""Ray Train around the loop: workers that start, die and start again, and the driver that watches them.

It does not know how a step is taken.
"""

import os
import tempfile
import time
from collections.abc import Callable, Container, Mapping
from multiprocessing.pool import AsyncResult, ThreadPool
from typing import Any

import ray
import ray.train
from ray.data import ExecutionOptions
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback

from llmray.job.errors import LlmrayError
from llmray.job.schema import Job
from llmray.job.training import Scale
from llmray.stream.datasets import in_order
from llmray.stream.errors import cause_of, chain
from llmray.training import failure
from llmray.training.attempt import Outcome, Work
from llmray.training.stopping import interrupts
from llmray.training.watch import EndOnOurErrors, Introduce, Journal
from llmray.training.worker import learn

POLL_S = 0.1
END_WITHIN_S = 10
NODE_GONE_WITHIN_S = 30
"""Time in which Ray sees that a node has died: five of its checks, 3 s apart, and the last one's 10 s."""

TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # 2 s by default: the time to see that a worker ended or died
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a job mean the same to its workers
}
ELASTIC_SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",  # 60 s by default: the time to see that a lost node's room is gone
}


class _Trainer(TorchTrainer):
    def _create_default_callbacks(self) -> list[Any]:
        """Ray's, but that one which starts a process to hand out data sets, where there are none to hand out: it would
        take seconds of CPU from workers that start."""
        made = super()._create_default_callbacks()
        return made if self.datasets else [each for each in made if not isinstance(each, DatasetsCallback)]


def on_workers(
    work: Work, datasets: Mapping[str, Any], take: Callable[[list[dict[str, Any]]], None], *, keep: bool = False
) -> Outcome:
    """Run on Ray Train workers while this thread takes what they tell and listens for Ctrl-C.

    `keep`: save checkpoints and the model under the job's output.
    """
    scale, gone_before = work.job.scale, _gone()
    for name, value in (TRAIN_SETTINGS | (ELASTIC_SETTINGS if scale.min_workers else {})).items():
        os.environ.setdefault(name, value)
    if scale.address is None:  # nobody takes this machine away with a warning
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    held_out = shares(datasets["eval"], scale.workers) if "eval" in datasets else None
    told = Journal.options(label_selector=here()).remote()  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="llmray-train-") as scratch, interrupts() as asked:
        trainer = _Trainer(
            learn,
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
                callbacks=[EndOnOurErrors(), Introduce(told)],
            ),
            datasets={name: ds for name, ds in datasets.items() if name == "train"},
            dataset_config=DataConfig(execution_options=ExecutionOptions(preserve_order=True)),
        )
        pool = ThreadPool(1)  # in the main thread Ray would take Ctrl-C over
        fitted = pool.apply_async(trainer.fit)
        pool.close()
        try:
            while not fitted.ready():
                if asked.is_set():
                    ray.get(told.ask_to_stop.remote())
                time.sleep(POLL_S)
                take(ray.get(told.take.remote()))
        finally:
            _end(fitted, told)
            take(ray.get(told.take.remote()))  # of a run that is torn off, too: its checkpoint may be that far
        return _result(fitted, work.job, gone_before)


def _end(fitted: AsyncResult[Any], told: Any) -> None:
    """Of a run that is left early, nothing goes on: Ray, once ended, ends the process of a thread that waits for it."""
    core = ray._private.worker.global_worker.core_worker
    deadline = time.monotonic() + END_WITHIN_S
    while not fitted.ready() and time.monotonic() < deadline:
        if controller := ray.get(told.controlled_by.remote()):
            core.kill_actor(ray.ActorID.from_hex(controller), True)
        fitted.wait(POLL_S)


def shares(held_out: Any, workers: int) -> list[Any]:
    """Validation rows, encoded once, in one nearly equal share for each worker.

    Not streamed: that would drop rows to make shares exactly equal, and run another coordinator all the while.
    """
    made = in_order(held_out).materialize()
    rows = made.count()
    return made.split_at_indices([rows * i // workers for i in range(1, workers)]) if workers > 1 else [made]


def _gone() -> dict[str, str]:
    """Nodes of the cluster that have died, and their addresses."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if not node["Alive"]}


def _gone_since(before: Container[str]) -> list[str]:
    """Addresses of those that have died meanwhile; other workers know of it before Ray does."""
    deadline = time.monotonic() + NODE_GONE_WITHIN_S
    while True:
        found = [address for node, address in _gone().items() if node not in before]
        if found or len(ray.nodes()) == 1 or time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)


def _result(fitted: AsyncResult[Any], job: Job, gone_before: Container[str]) -> Outcome:
    try:
        metrics, step = fitted.get().return_value
        return metrics, step
    except ray.train.TrainingFailedError as error:
        if cause := cause_of(error):
            raise cause from None
        if isinstance(error, ray.train.WorkerGroupError):
            raise failure.of_workers(error.worker_failures, job, lambda: _gone_since(gone_before)) from error
        root = chain(error)[-1]
        raise LlmrayError(
            f"training failed after {job.scale.max_failures} restarts: {type(root).__name__}: {root}"
        ) from error


def here() -> dict[str, str]:
    """Selects the driver's machine, which a run does not outlive; another one may be lost."""
    return {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}


def resources(scale: Scale) -> dict[str, float]:
    """What Ray reserves for a worker; on a machine that has no CPU to spare, a little less, so that data can flow."""
    spare = (ray.cluster_resources().get("CPU", 1.0) - 1) / scale.workers
    cpus = scale.cpus_per_worker if scale.cpus_per_worker <= spare or scale.address else max(0.1, spare)
    return {"CPU": cpus} | ({"GPU": scale.gpus_per_worker} if scale.gpus_per_worker else {})
