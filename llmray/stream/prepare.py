"""Sources of a job → Ray Datasets of records, of features, of stored blocks.

It does not know what the features mean, nor who learns from them.  Everything is lazy and streams: a shard is read,
encoded and handed on while the next one is still on disk.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from transformers import PreTrainedTokenizerFast

from llmray.corpus import tokenizer as bpe
from llmray.corpus.record import Record
from llmray.corpus.source import shards
from llmray.job.errors import DataError, StoreError
from llmray.job.load import dump
from llmray.job.results import PrepareResult
from llmray.job.schema import Job, Source, Tokenizer
from llmray.model.load import processor
from llmray.store import place
from llmray.store.journal import Progress
from llmray.stream.errors import surfaced
from llmray.stream.steps import Encode, Read, Shuffle
from llmray.tasks import TASKS, make
from llmray.tasks.base import Processor, Task

ENCODE_ROWS = 1000
"""Records that a task encodes at once; language models pack within them."""

MANIFEST = "manifest.json"


def dataset(sources: Sequence[Source], record: type[Record], shuffle_rows: int = 0, seed: int = 0) -> ray.data.Dataset:
    """Records of all sources, in order, or shuffled among `shuffle_rows` at a time.

    Raises `DataError` naming the path when nothing readable is there.
    """
    work = [shard for source in sources for shard in shards(source)]
    numbers = ray.data.range(len(work), override_num_blocks=len(work))
    rows = numbers.map_batches(Read(work, record), batch_size=None)
    return rows.map_batches(Shuffle(seed), batch_size=shuffle_rows, batch_format="pyarrow") if shuffle_rows else rows


def encoded(rows: ray.data.Dataset, task: Task) -> ray.data.Dataset:
    """Features of the task, ready for `stream.batches`."""
    return rows.map_batches(Encode(task), batch_size=ENCODE_ROWS, batch_format="pyarrow")


def features(sources: Sequence[Source], task: Task, shuffle_rows: int = 0, seed: int = 0) -> ray.data.Dataset:
    """Features of sources: encoded as they stream, or as `prepare` stored them."""
    stores = [source.path for source in sources if place.exists(place.join(source.path, MANIFEST))]
    if not stores:
        return encoded(dataset(sources, task.record, shuffle_rows, seed), task)
    if len(sources) > 1:
        raise DataError(f"{stores[0]}: a prepared store stands alone; prepare the other sources into it")
    made_for = json.loads(place.read_text(place.join(stores[0], MANIFEST)))["job"]["task"]
    if made_for != task.options.model_dump(mode="json"):
        raise DataError(f"{stores[0]}: was prepared for the task {made_for}; this job's is {task.options.model_dump()}")
    return ray.data.read_parquet(place.expand(place.join(stores[0], "blocks"), [".parquet"]))


def train_tokenizer(sources: Sequence[Source], record: type[Record], wanted: Tokenizer) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the sources' first `sample_rows` rows."""
    with surfaced():
        rows = dataset(sources, record).limit(wanted.sample_rows)
        texts = [t for b in rows.iter_batches(batch_format="pyarrow") for t in bpe.texts_of(b.to_pydict(), record)]
    return bpe.train(texts, wanted.vocab_size)


def prepare(job: Job, progress: Progress) -> PrepareResult:
    """Encode `data.train` into Parquet shards under `output/blocks`; `manifest.json`, written last, commits them.

    A second run with the same job returns the first one's result.  Raises `StoreError` when the folder holds the
    store of another job.
    """
    assert job.task is not None
    manifest = place.join(job.output, MANIFEST)
    if place.exists(manifest):
        return _known(job, json.loads(place.read_text(manifest)))
    began, label = time.monotonic(), f"prepare {job.output}"
    progress.start(label)
    kind = TASKS[job.task.name]
    with surfaced():
        task = make(job.task, _processor(job, kind.record), job.train.seed)
        features = encoded(dataset(job.data.train, kind.record, job.data.shuffle_rows, job.train.seed), task)
        place.remove(place.join(job.output, "blocks"))
        features.write_parquet(place.join(job.output, "blocks"))
    written = _written(job.output)
    result = PrepareResult(
        store=job.output,
        rows=sum(w["rows"] for w in written),
        tokens=sum(w["tokens"] for w in written),
        seconds=time.monotonic() - began,
    )
    body = {"job": _identity(job), "shards": written, "result": result.model_dump()}
    place.write_text(place.join(job.output, "job.yaml"), dump(job))
    place.write_text(manifest, json.dumps(body, indent=2))
    progress.done(label, f"{result.rows:,} rows, {result.tokens:,} tokens")
    return result


def _identity(job: Job) -> dict[str, Any]:
    """What decides a store's content."""
    return job.model_dump(mode="json", by_alias=True, include={"task", "model", "data"}) | {"seed": job.train.seed}


def _known(job: Job, manifest: dict[str, Any]) -> PrepareResult:
    differing = [key for key, value in _identity(job).items() if manifest["job"].get(key) != value]
    if differing:
        raise StoreError(
            f"{job.output}: holds the store of another job, which differs in {', '.join(differing)};"
            " choose another `output`, or remove the folder"
        )
    return PrepareResult(**manifest["result"])


def _processor(job: Job, record: type[Record]) -> Processor:
    if job.model is not None and (job.model.tokenizer or not job.model.from_.startswith("new:")):
        found = processor(job.model)
    else:
        found = Processor(train_tokenizer(job.data.train, record, job.data.tokenizer))
    with tempfile.TemporaryDirectory() as scratch:
        found.tokenizer.save_pretrained(Path(scratch, "tokenizer"))
        place.upload(Path(scratch, "tokenizer"), place.join(job.output, "tokenizer"))
    return found


def _written(output: str) -> list[dict[str, Any]]:
    found = []
    for path in place.expand(place.join(output, "blocks"), [".parquet"]):
        with place.open_file(path) as file:
            body = file.read()
        table, digest = pq.read_table(pa.BufferReader(body)), hashlib.sha256(body).hexdigest()
        tokens = sum(
            len(ids.values) for c in ("input_ids", "labels") if c in table.column_names for ids in table[c].chunks
        )
        found.append({"name": Path(path).name, "rows": table.num_rows, "tokens": tokens, "sha256": digest})
    return found
