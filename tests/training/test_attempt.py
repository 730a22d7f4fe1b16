"""Where a worker stands in the data, told without a cluster."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llmray.job.schema import Job
from llmray.model.load import processor
from llmray.store import place
from llmray.stream.blocks import BLOCKS, Write
from llmray.stream.feed import Portion
from llmray.stream.steps import arrow
from llmray.tasks import make
from llmray.training import attempt
from llmray.training.attempt import Attempt, Seat, Work

ROWS = 40


def begun(model: str, *portions: Portion) -> Attempt:
    job = Job.model_validate(
        {
            "task": {"name": "causal_lm", "seq_len": 16},
            "model": {"from": model},
            "data": {"train": "builtin:shapes"},
            "train": {"batch_size": 8, "precision": "fp32"},
        }
    )
    assert job.model is not None
    return Attempt(Work(job, make(job.task, processor(job.model)), 5, portions), Seat(), {}, None)


def test_a_batch_of_a_prepared_store_is_told_by_its_files_and_rows(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [[number, number] for number in range(ROWS)]
    line = Write(str(tmp_path))(arrow({"input_ids": ids})).to_pylist()
    schema = {"input_ids": "list<element: int32>"}
    about: dict[str, Any] = {"shards": line, "task": {}, "processor": "", "job": {}, "result": {}, "schema": schema}
    place.write_text(str(tmp_path / "manifest.json"), json.dumps(about))
    found = begun(models["causal_lm"], Portion((str(tmp_path),)))
    path = tmp_path / BLOCKS / line[0]["name"]
    told = found._batch_of(2).removeprefix(f"{path}, rows ")
    read = pq.read_table(path)["input_ids"].to_pylist()
    batch = next(iter(found._feed(1)))
    assert sorted(read[int(row) - 1] for row in told.split(", ")) == sorted(map(list, batch["input_ids"]))
    monkeypatch.setattr(attempt, "MOST_ROWS", 3)
    assert found._batch_of(2).endswith("; and 5 more")


def test_a_batch_that_was_streamed_is_told_by_its_rows(models: dict[str, str]) -> None:
    told = begun(models["causal_lm"])._batch_of(3)
    assert told == "rows 17 to 24 of data.train as they were streamed, all passes counted"
