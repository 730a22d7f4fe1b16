"""The Predictor over held-out rows, through Ray Data.

It does not know how a model was trained.  Batches are measured here or in plain Ray tasks (`scale`), which keep the
last model they loaded, so that evaluations one after another find their workers warm.
"""

import json
import time
from functools import lru_cache
from typing import Any

from ray.data import Dataset

from llmray.corpus.record import Columns, Record
from llmray.job.data import Source
from llmray.job.load import dump
from llmray.job.results import EvaluateResult
from llmray.job.schema import Job, Model
from llmray.model.load import resolve
from llmray.model.predict import Predictor
from llmray.model.registry import nearest
from llmray.scoring.report import render
from llmray.store import place
from llmray.store.journal import Progress
from llmray.stream.datasets import dataset
from llmray.stream.errors import surfaced
from llmray.tasks.base import Task

BASELINE_ROWS = 5000
EXAMPLES = 20


@lru_cache(maxsize=1)
def _predictor(section: Model, options: Any) -> Predictor:
    return Predictor.load(section, options)


def _measure(batch: Columns, section: Model, options: Any) -> Columns:
    rows = {name: list(values) for name, values in batch.items()}
    return {"measurement": [json.dumps(m) for m in _predictor(section, options).measure(rows)]}


def _measurements(job: Job, held_out: Dataset, section: Model) -> list[dict[str, Any]]:
    if job.scale.in_process:
        model = _predictor(section, job.task)
        batches = held_out.iter_batches(batch_size=job.evaluate.batch_size, batch_format="pyarrow")
        return [measurement for batch in batches for measurement in model.measure(batch.to_pydict())]
    measured = held_out.map_batches(
        _measure,
        batch_size=job.evaluate.batch_size,
        fn_kwargs={"section": section, "options": job.task},
        num_gpus=job.scale.gpus_per_worker or None,
    )
    return [json.loads(row["measurement"]) for row in measured.take_all()]


def _rows(sources: tuple[Source, ...], task: Task, limit: int) -> Columns:
    with surfaced():
        table = dataset(sources, task.record).limit(limit).take_all()
    return {name: [row[name] for row in table] for name in (table[0] if table else {})}


def batches(job: Job, record: type[Record]) -> list[Columns]:
    """`job.data.eval`, to the job's limit, in batches."""
    with surfaced():
        found = _held_out(job, record).iter_batches(batch_size=job.evaluate.batch_size, batch_format="pyarrow")
        return [batch.to_pydict() for batch in found]


def _held_out(job: Job, record: type[Record]) -> Dataset:
    rows = dataset(job.data.eval, record)
    return rows.limit(job.evaluate.limit) if job.evaluate.limit else rows


def _baseline(job: Job, task: Task) -> dict[str, float]:
    if not job.data.train:
        return {}
    held_out = _rows(job.data.eval, task, min(job.evaluate.limit or BASELINE_ROWS, BASELINE_ROWS))
    return task.baseline(_rows(job.data.train, task, BASELINE_ROWS), held_out)


def evaluate(job: Job, progress: Progress) -> EvaluateResult:
    """Measure `job.model` on `job.data.eval`; `report.json` and `report.html` go to `evaluation/` in `job.output`."""
    assert job.model is not None
    began, label = time.monotonic(), f"evaluate {job.model.from_}"
    progress.start(label)
    section = job.model.model_copy(update={"from_": resolve(job.model.from_, nearest(job.output))})
    task = _predictor(section, job.task).task
    with surfaced():
        measurements = _measurements(job, _held_out(job, task.record), section)
    result = EvaluateResult(
        report=place.join(job.output, "evaluation", "report.json"),
        task=task.name,
        rows=len(measurements),
        metrics=task.summarise(measurements),
        baseline=_baseline(job, task),
        seconds=time.monotonic() - began,
    )
    _write(job, result, measurements[:EXAMPLES])
    progress.done(label, f"{task.headline} {result.metrics[task.headline]:.3f}")
    return result


def _write(job: Job, result: EvaluateResult, examples: list[dict[str, Any]]) -> None:
    assert job.model is not None
    folder = place.join(job.output, "evaluation")
    place.write_text(place.join(folder, "job.yaml"), dump(job))
    place.write_text(place.join(folder, "report.html"), render(result, job.model.from_, examples))
    place.write_text(result.report, json.dumps(result.model_dump() | {"examples": examples}, indent=2))
