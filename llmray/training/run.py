"""A run from its start to its result: in this process, or on Ray Train workers.

It does not know how a step is taken.  The same command on an unfinished run resumes it, on a finished one returns
its result.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

import ray

from llmray.job.errors import InterruptedWorkError
from llmray.job.results import TrainResult
from llmray.job.schema import Job
from llmray.store import folder, journal, place
from llmray.store.journal import Progress
from llmray.stream.datasets import in_order
from llmray.training import failure
from llmray.training.attempt import Attempt, Outcome, Seat, Work, identity
from llmray.training.memory import within_memory
from llmray.training.plan import plan
from llmray.training.stopping import interrupts
from llmray.training.telling import Watch


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
            from llmray.training.driver import on_workers  # and Ray Train, half a second that the other way saves

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
        ds.context.execution_options.resource_limits = ray.data.ExecutionResources(
            cpu=max(1, (os.cpu_count() or 1) // 2)
        )
    shards = {name: in_order(ds).iterator() for name, ds in datasets.items()}
    with within_memory(Seat(), work.job.train):
        attempt = Attempt(work, Seat(), shards, work.checkpoints, watch.warn)
        watch.take([{"began_at": attempt.start_step}])
        with interrupts() as asked:
            for row in attempt.rows(asked.is_set):
                watch.take([row])
    return attempt.finish()
