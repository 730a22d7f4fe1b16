"""Ray Tune around trials: start them, stop the hopeless early (ASHA), keep what they found.

It does not know how a trial learns.
"""

import logging
import os
import pickle
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler

from llmray.job.errors import InterruptedWorkError, JobError, LlmrayError
from llmray.job.load import dump, require
from llmray.job.results import TuneResult
from llmray.job.schema import Job
from llmray.search.report import Outcome, render
from llmray.search.space import changes_data, trials
from llmray.search.trial import Sweep, Trial, spread_trial
from llmray.search.watch import Gauges, StopAll, Watch
from llmray.store import folder, place
from llmray.store.journal import Progress
from llmray.stream.errors import cause_of, chain
from llmray.training.attempt import Work
from llmray.training.driver import resources
from llmray.training.plan import counted, plan, total_steps
from llmray.training.stopping import interrupts

METRICS = ("eval_loss", "loss")
SHARED_BYTES = 512 << 20
"""Encoded rows up to this size are made once and shared by the trials; more are streamed by each."""

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files beside our own
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "1000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `interrupts` listens
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a job mean the same to its trials
}


def tune(job: Job, progress: Progress) -> TuneResult:
    """Try the trials of `job.tune`; write `best.yaml`, `trials.parquet` and `sweep.html` under `job.output`."""
    began = time.monotonic()
    require(job, "task", "model.from", "data.train", "tune")
    assert job.tune is not None
    options = job.tune
    job = job.model_copy(update={"output": folder.settled(job.output)})
    label = f"tune {job.output.rsplit('/', 1)[-1]}"
    sections = (*folder.SECTIONS, "tune")
    state = folder.claim(job.output, job, sections)
    if state == "done":
        progress.note(f"✓ {label}  is done already: {job.output}")
        return TuneResult(**folder.result_of(job.output))
    chosen = trials(with_metric(job))
    progress.note(f"{label}: preparing")
    works, datasets = _works(job, [trial for _, trial in chosen])
    folder.begin(job.output, job)
    outcomes = [Outcome(values, work.total_steps) for (values, _), work in zip(chosen, works, strict=True)]
    worst = float("inf") if options.mode == "min" else float("-inf")
    gauges = Gauges(job.output) if "prometheus" in job.train.loggers else None
    watch = Watch(options, outcomes, label, progress, gauges)
    _run(job, Sweep(tuple(works), options.metric, worst, datasets), watch)
    result = _write(job, outcomes, [trial for _, trial in chosen], began)
    progress.done(label, ", ".join(f"{key} {value}" for key, value in result.best_values.items()))
    return result


def with_metric(job: Job) -> Job:
    """The job, once its metric is one that training reports."""
    assert job.tune is not None
    if job.tune.metric not in METRICS:
        raise JobError(f"tune.metric: training reports no {job.tune.metric!r}; allowed: {', '.join(METRICS)}")
    if job.tune.metric == "eval_loss":
        require(job, "data.eval")
    return job


def _works(job: Job, variants: Sequence[Job]) -> tuple[list[Work], Mapping[str, Any] | None]:
    """What each trial does, and the encoded rows that all share where they may."""
    assert job.tune is not None
    if changes_data(job.tune):
        outputs = [place.join(job.output, "trials", str(i)) for i in range(len(variants))]
        own = [v.model_copy(update={"output": output}) for v, output in zip(variants, outputs, strict=True)]
        return [validating(plan(variant)[0]) for variant in own], None
    first, datasets = plan(variants[0])
    rows = counted(datasets)

    def work_of(variant: Job) -> Work:
        job = variant.model_copy(update={"model": first.job.model})
        return validating(replace(first, job=job, total_steps=total_steps(variant, first.portions, rows)))

    works = [work_of(variant) for variant in variants]
    return works, _shared(datasets, max(work.total_steps * work.job.train.batch_size for work in works))


def validating(work: Work) -> Work:
    """A trial validates often enough for ASHA to see who is hopeless: ten times, unless the job says."""
    train, tune = work.job.train, work.job.tune
    assert tune is not None
    update = {"eval_every": train.eval_every or max(tune.grace_steps, work.total_steps // 10)}
    return replace(work, job=work.job.model_copy(update={"train": train.model_copy(update=update)}))


def _shared(datasets: Mapping[str, Any], rows: int) -> Mapping[str, Any] | None:
    """The encoded rows that trials need, made once in Ray's object store; None where they are too many."""
    if "train" not in datasets:  # prepared: each trial reads it by itself
        return datasets
    sample = datasets["train"].take_batch(8, batch_format="default")
    if rows * sum(len(pickle.dumps(column)) for column in sample.values()) / 8 > SHARED_BYTES:
        return None
    found = dict(datasets)
    found["train"] = found["train"].limit(rows)
    for ds in found.values():
        ds.context.execution_options.preserve_order = True
    return {name: ds.materialize() for name, ds in found.items()}


def _run(job: Job, sweep: Sweep, watch: Watch) -> None:
    """Run the trials under ASHA; what they report ends up in `watch`."""
    assert job.tune is not None
    for name, value in TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # `watch` and the errors below say it better
    longest = max(work.total_steps for work in sweep.works)
    scale = job.scale
    one = scale.workers == 1
    trainable = ray_tune.with_resources(
        Trial if one else spread_trial,
        resources(scale.model_copy(update={"workers": job.tune.concurrent}))
        if one
        else {"CPU": 0.01},  # its workers bring their own
    )
    with tempfile.TemporaryDirectory(prefix="llmray-tune-") as scratch, interrupts(patient=True) as asked:
        tuner = ray_tune.Tuner(
            trainable,
            param_space={"trial": ray_tune.grid_search(list(range(len(sweep.works)))), "sweep": ray.put(sweep)},
            tune_config=ray_tune.TuneConfig(
                metric=job.tune.metric,
                mode=job.tune.mode,
                scheduler=ASHAScheduler(
                    time_attr="step",
                    max_t=longest,
                    grace_period=min(job.tune.grace_steps, longest),
                    reduction_factor=job.tune.reduction_factor,
                ),
                max_concurrent_trials=job.tune.concurrent,
                reuse_actors=one,
            ),
            run_config=ray_tune.RunConfig(
                name="tune", storage_path=scratch, callbacks=[watch], stop=StopAll(asked), verbose=0
            ),
        )
        results = tuner.fit()
    if asked.is_set():
        raise InterruptedWorkError(f"{watch.label}: stopped; the same command starts the search again")
    if not any(outcome.metric is not None for outcome in watch.outcomes):
        error = results.errors[0] if results.errors else None
        raise cause_of(error) or LlmrayError(f"every trial failed: {chain(error)[-1] if error else 'no reports'}")


def _write(job: Job, outcomes: Sequence[Outcome], variants: Sequence[Job], began: float) -> TuneResult:
    """Pick the best trial and write the three files, then the result that commits them."""
    assert job.tune is not None
    sign = 1 if job.tune.mode == "min" else -1
    ranked = [o for o in outcomes if o.metric is not None and o.status in ("finished", "stopped early")]
    if not ranked:
        raise LlmrayError("every trial diverged or failed; search lower values of train.learning_rate")
    best = min(ranked, key=lambda o: sign * float(o.metric or 0.0))
    variant = variants[list(outcomes).index(best)]
    text = dump(variant.model_copy(update={"tune": None, "output": place.join(job.output, "best")}))
    place.write_text(place.join(job.output, "best.yaml"), text)
    with place.open_file(place.join(job.output, "trials.parquet"), "wb") as file:
        pq.write_table(table_of(outcomes, job.tune.metric), file)
    page = render(f"Sweep {job.output.rsplit('/', 1)[-1]}", job.tune.metric, outcomes, best, text)
    place.write_text(place.join(job.output, "sweep.html"), page)
    result = TuneResult(
        run=job.output,
        best=place.join(job.output, "best.yaml"),
        best_values={key: plain(value) for key, value in best.values.items()},
        metric=job.tune.metric,
        value=float(best.metric or 0.0),
        trials=len(outcomes),
        stopped_early=sum(o.status == "stopped early" for o in outcomes),
        seconds=time.monotonic() - began,
    )
    folder.mark_done(job.output, result)
    return result


def table_of(outcomes: Sequence[Outcome], metric: str) -> pa.Table:
    """One row a trial."""
    columns: dict[str, list[Any]] = {"trial": list(range(len(outcomes)))}
    for key in outcomes[0].values:
        columns[key] = [plain(o.values[key]) for o in outcomes]
    columns[metric] = [o.metric for o in outcomes]
    for name in ("step", "total_steps", "status", "seconds"):
        columns[name] = [getattr(o, name) for o in outcomes]
    return pa.table(columns)


def plain(value: Any) -> float | int | str | bool:
    return value if isinstance(value, (float, int, str, bool)) else str(value)
