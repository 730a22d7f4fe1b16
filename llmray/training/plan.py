"""A job judged against its model and corpus, before any worker starts.

It does not know how training runs.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llmray.corpus.source import is_store, read, shards
from llmray.job.errors import DataError, JobError
from llmray.job.load import require
from llmray.job.schema import Job, Model
from llmray.job.task import Classification
from llmray.job.training import Train
from llmray.model.load import processor, require_fit, resolve
from llmray.model.registry import nearest
from llmray.store import place
from llmray.stream.datasets import features, labelled, train_tokenizer
from llmray.stream.feed import Feed, Portion, portions_of
from llmray.tasks import TASKS, make
from llmray.tasks.base import Processor, Task
from llmray.training.attempt import Work
from llmray.training.lora import require_peft

MOST_LABELS = 1000
"""More classes than this are found in a corpus by mistake, such as that of another column."""


def plan(job: Job, *, resumed: bool = False) -> tuple[Work, dict[str, Any]]:
    """Settle model, tokenizer, task and length: the work, and its datasets by name, ready to stream."""
    require(job, "task", "model.from", "data.train")
    assert job.task is not None
    if job.train.lora:
        require_peft()
    require_prepared(job)
    model = settled_model(job, resumed)
    task = settled_task(job, processor(model))
    require_fit(model, task)
    require_one_batch(job, task)
    given, job = job, job.model_copy(update={"model": model, "task": task.options})
    portions, datasets = portions_of(job.data.train, task), encoded_sources(job, task)
    return Work(job, task, total_steps(job, portions, counted(datasets)), portions, given), datasets


def needs_ray(job: Job) -> bool:
    """Whether more than this program takes part: workers, or Ray Data where rows do not lie ready to be learned from.

    Ray exports Prometheus' metrics, too, and looks for the classes that a job does not name.
    """
    ready = all(map(is_store, job.data.train)) and not job.data.eval
    task = job.task
    unnamed = isinstance(task, Classification) and not (task.labels or task.regression)
    return not (job.scale.in_process and ready) or unnamed or "prometheus" in job.train.loggers


def encoded_sources(job: Job, task: Task) -> dict[str, Any]:
    """The sources of `data` as encoded datasets, ready to stream; prepared stores to learn from are fed instead."""
    datasets = {}
    if not any(map(is_store, job.data.train)):
        datasets["train"] = features(job.data.train, task, job.data.shuffle_rows, job.train.seed)
    if job.data.eval:
        datasets["eval"] = features(job.data.eval, task)
    return datasets


def settled_model(job: Job, resumed: bool) -> Model:
    """The model section with its reference resolved, local paths absolute, and a tokenizer where one is needed."""
    assert job.model is not None
    near = nearest(job.output)
    reference = absolute(resolve(job.model.from_, near))
    tokenizer = job.model.tokenizer and resolve(job.model.tokenizer, near)
    if tokenizer is None and reference.startswith("new:"):
        tokenizer = prepared_tokenizer(job) or trained_tokenizer(job, resumed)
    return job.model.model_copy(update={"from_": reference, "tokenizer": tokenizer and absolute(tokenizer)})


def settled_task(job: Job, processor: Processor) -> Task:
    """The task, its classes found in the corpus where it has some and the job names none."""
    train = job.train
    loss = {"label_smoothing": train.label_smoothing, "chunked_loss": train.chunked_loss}
    task = make(job.task, processor, train.seed, **loss)
    if not isinstance(task.options, Classification) or task.options.regression or task.options.labels:
        return task
    labels = labelled(job.data.train, task)
    if len(labels) < 2:
        raise DataError(f"data.train: all rows have the label {labels[0]!r}; a classifier needs two or more classes")
    if len(labels) > MOST_LABELS:
        raise DataError(
            f"data.train: {len(labels)} different labels, such as {labels[0]!r}; is it the right column? Numbers to be"
            " told need task.regression: true; that many classes need to be named as task.labels"
        )
    return make(task.options.model_copy(update={"labels": tuple(labels)}), processor, train.seed, **loss)


def prepared_tokenizer(job: Job) -> str | None:
    """The tokenizer of the first source that is a prepared store."""
    folders = (place.join(source.path, "tokenizer") for source in job.data.train if "://" not in source.path)
    return next(filter(place.listdir, folders), None)


def trained_tokenizer(job: Job, resumed: bool) -> str:
    """A folder under the run with a tokenizer trained on its corpus; a resumed run has one already."""
    assert job.task is not None
    folder = place.join(job.output, "tokenizer")
    if not (resumed and place.listdir(folder)):
        kind = TASKS[job.task.name]
        extra = kind.special_tokens
        tokenizer = train_tokenizer(job.data.train, kind.record, job.data.tokenizer, extra=extra)
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer.save_pretrained(Path(scratch, "tokenizer"))
            place.upload(Path(scratch, "tokenizer"), folder)
    return str(place.local_copy(folder))


def absolute(reference: str) -> str:
    """A local folder's full path, since workers run elsewhere; anything else unchanged."""
    return str(Path(reference).absolute()) if "://" not in reference and Path(reference).exists() else reference


def require_prepared(job: Job) -> None:
    """A stream is dealt out anew to another number of workers, some of its rows twice and others never."""
    streamed = next((source.path for source in job.data.train if not is_store(source)), None)
    if job.scale.min_workers and streamed:
        raise JobError(
            f"scale.min_workers: {streamed} is streamed, and to fewer workers it would come in another order, some rows"
            " twice and others never; `llmray prepare` it and give the folder as data.train, or remove the key"
        )


def require_one_batch(job: Job, task: Task) -> None:
    """Read and encode one batch's rows here: what is wrong with a corpus shows before any worker is held.

    Raises `DataError` when all of the corpus makes less than one batch.
    """
    rows = 0
    for source in job.data.train:
        if is_store(source):
            return  # prepared: judged when it was written
        for shard in shards(source):
            for columns in read(shard, task.record, job.train.batch_size):
                rows += len(next(iter(task.encode(columns).values())))
                if rows >= job.train.batch_size:
                    return
    raise DataError(
        f"data.train: {', '.join(source.path for source in job.data.train)} makes {rows} encoded rows, fewer than one"
        f" batch ({job.train.batch_size}); lower train.batch_size"
    )


def counted(datasets: Mapping[str, Any]) -> Callable[[], int]:
    """The encoded rows of what is streamed, counted once, when they are asked for."""
    return cache(lambda: datasets["train"].count())


def total_steps(job: Job, portions: Sequence[Portion], rows: Callable[[], int]) -> int:
    """Optimiser steps of the whole run: as told, or from the `epochs` of stored `portions`, else of streamed `rows`."""
    train = job.train
    if train.steps is not None:
        steps = train.steps
    elif train.epochs is None:
        raise JobError("train.steps or train.epochs: say how long to train, in the job file or as `train.steps=…`")
    elif portions:  # whose batches run across the end of an epoch
        steps = max(1, train.epochs * Feed(portions, train.batch_size).epoch_rows // train.batch_size)
    else:
        steps = steps_of(train, rows(), job.scale.workers)
    if train.warmup_steps >= steps:
        raise JobError(f"train.warmup_steps ({train.warmup_steps}) must be below the run's {steps} steps")
    return steps


def steps_of(train: Train, rows: int, workers: int) -> int:
    """Whole steps in `epochs` passes over `rows`, each worker dropping its last, incomplete batch of a pass.

    100 rows, 2 workers, batch 16 in 2 passes: 50 rows a worker, 12 batches of 4, 6 steps an epoch.
    """
    assert train.epochs
    share = train.batch_size // (workers * train.accumulate)
    parts = rows // workers // share * train.epochs
    if parts < train.accumulate:
        raise DataError(
            f"data.train: {rows} encoded rows are fewer than one batch ({train.batch_size}); lower train.batch_size"
        )
    return parts // train.accumulate
