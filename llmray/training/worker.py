"""What one Ray Train worker does: its seat taken, the loop run, rows told, notices of losing its machine heeded.

It does not know how workers are started, nor how many times.
"""

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import get_device
from ray.train.v2._internal.logging.logging import get_train_application_worker_log_path

from llmray.job.training import Scale
from llmray.training.attempt import Attempt, Outcome, Seat, Work
from llmray.training.failure import end_of
from llmray.training.memory import within_memory
from llmray.training.stopping import flag

NOTICE_EVERY_S = 2.0
"""Ray itself looks for notices every 5 s."""


def learn(config: dict[str, Any]) -> Outcome:
    """What one Ray Train worker does."""
    context = ray.train.get_context()
    seat = Seat(context.get_world_rank(), context.get_world_size(), get_device())
    work, held_out = ray.get(config["told"])
    try:
        with within_memory(seat, work.job.train):
            return _seated(seat, work, held_out, config)
    except Exception:
        if config["keep"] and (log := get_train_application_worker_log_path()):
            ray.get(config["journal"].tell.remote({"failed": seat.rank, "log": end_of(log)}))
        raise


def _seated(seat: Seat, work: Work, held_out: list[Any] | None, config: dict[str, Any]) -> Outcome:
    told = config["journal"]
    shards: dict[str, Any] = {} if work.portions else {"train": ray.train.get_dataset_shard("train")}
    if held_out:  # in as many shares as there are workers at most
        mine, *others = held_out[seat.rank :: seat.world]
        shards["eval"] = (mine.union(*others) if others else mine).iterator()
    torch.set_num_threads(max(1, int(work.job.scale.cpus_per_worker)))
    kept = work.checkpoints if config["keep"] else None
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
    return attempt.finish() if config["keep"] else (attempt.metrics, None)


def notices(scale: Scale) -> AbstractContextManager[threading.Event]:
    """An event that is set when a worker's machine is about to be taken away; Ray has all workers ask for it."""
    if scale.address is None:
        return nullcontext(threading.Event())
    return flag(lambda: ray.train.get_preemption_info() is not None, NOTICE_EVERY_S)
