"""Sources of a job → Ray Datasets of records, of features; features → a prepared store.

It does not know what the features mean, nor who learns from them.  Everything is lazy and streams: a shard is read,
encoded and handed on while the next one is still on disk.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.data
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llmray.corpus import tokenizer as bpe
from llmray.corpus.record import Record
from llmray.corpus.source import MANIFEST, is_store, read, shards
from llmray.job.errors import DataError, StoreError
from llmray.job.load import dump
from llmray.job.results import PrepareResult
from llmray.job.schema import Job, Source, Tokenizer
from llmray.model.load import processor
from llmray.model.registry import nearest
from llmray.store import place
from llmray.store.journal import Progress
from llmray.stream import blocks
from llmray.stream.errors import surfaced
from llmray.stream.steps import Encode, Read, Shuffle
from llmray.tasks import TASKS, make
from llmray.tasks.base import Processor, Task

BLOCK_BYTES = 1 << 20
"""Ray Data hands blocks on at this size: its default of 128 MB would hold a first batch back for seconds."""
FILE_BYTES = 32 << 20
"""Size of a store's files, uncompressed."""
APART = 0.5
"""CPUs of a step that must not be fused with the one before, which takes 1: fused, Ray would gather as many shards for
one task as the step wants rows."""


def dataset(sources: Sequence[Source], record: type[Record], shuffle_rows: int = 0, seed: int = 0) -> ray.data.Dataset:
    """Records of all sources, in order, or shuffled among `shuffle_rows` at a time.

    Raises `DataError` naming the path when nothing readable is there.
    """
    work = [shard for source in sources for shard in shards(source)]
    return _shuffled(_each(len(work), Read(work, record)), shuffle_rows, seed)


def encoded(rows: ray.data.Dataset, task: Task) -> ray.data.Dataset:
    """Features of the task, ready for `stream.batches`."""
    return rows.map_batches(Encode(task), batch_size=None, batch_format="pyarrow")


def features(sources: Sequence[Source], task: Task, shuffle_rows: int = 0, seed: int = 0) -> ray.data.Dataset:
    """Features of sources: encoded as they stream, or as `prepare` stored them."""
    stored = [source for source in sources if is_store(source)]
    if not stored:
        return encoded(dataset(sources, task.record, shuffle_rows, seed), task)
    if len(sources) > 1:
        raise DataError(f"{stored[0].path}: a prepared store stands alone; prepare the other sources into it")
    files = blocks.checked(stored[0], task)["shards"]
    return _shuffled(_each(len(files), blocks.ReadBlocks(stored[0].path, files)), shuffle_rows, seed)


def train_tokenizer(sources: Sequence[Source], record: type[Record], wanted: Tokenizer) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the sources' first `sample_rows` rows, an equal share of each source."""
    share = -(-wanted.sample_rows // len(sources))
    texts = (text for source in sources for text in _texts(source, record, share))
    return bpe.train(texts, wanted.vocab_size)


def _texts(source: Source, record: type[Record], rows: int) -> Iterator[str]:
    for shard in shards(source):
        for columns in read(shard, record, min(rows, 256)):
            some = {name: values[:rows] for name, values in columns.items()}
            yield from bpe.texts_of(some, record)
            rows -= len(next(iter(some.values())))
            if rows <= 0:
                return


def _each(parts: int, step: Callable[[Any], Any]) -> ray.data.Dataset:
    """One task for each number below `parts`."""
    numbers = ray.data.range(parts, override_num_blocks=parts)
    numbers.context.target_max_block_size = BLOCK_BYTES
    numbers.context.execution_options.preserve_order = True
    return numbers.map_batches(step, batch_size=None)


def _shuffled(rows: ray.data.Dataset, shuffle_rows: int, seed: int) -> ray.data.Dataset:
    if not shuffle_rows:
        return rows
    return rows.map_batches(Shuffle(seed), batch_size=shuffle_rows, batch_format="pyarrow", num_cpus=APART)


def prepare(job: Job, progress: Progress) -> PrepareResult:
    """Encode `data.train` into Parquet files under `output/blocks`; `manifest.json`, written last, commits them.

    A second run with the same job returns the first one's result.  Raises `StoreError` when the folder holds the
    store of another job.
    """
    assert job.task is not None
    if place.exists(place.join(job.output, MANIFEST)):
        return _known(job, blocks.manifest(job.output))
    began, label = time.monotonic(), f"prepare {job.output}"
    progress.start(label)
    kind = TASKS[job.task.name]
    task = make(job.task, _processor(job, kind.record), job.train.seed)
    place.remove(place.join(job.output, blocks.BLOCKS))
    files, schema = _written(job, task, lambda rows: progress.update(label, rows))
    if not files:
        paths = ", ".join(source.path for source in job.data.train)
        raise DataError(f"data.train: {paths} makes no encoded rows; see `where` and `limit` of the sources")
    rows, tokens = (sum(file[key] for file in files) for key in ("rows", "tokens"))
    result = PrepareResult(store=job.output, rows=rows, tokens=tokens, seconds=time.monotonic() - began)
    body = {
        "job": _identity(job),
        "task": blocks.encoding(task),
        "processor": blocks.identity(task.processor),
        "schema": schema,
        "shards": files,
        "result": result.model_dump(),
    }
    place.write_text(place.join(job.output, "job.yaml"), dump(job))
    place.write_text(place.join(job.output, MANIFEST), json.dumps(body, indent=2))
    progress.done(label, f"{result.rows:,} rows, {result.tokens:,} tokens")
    return result


def _written(job: Job, task: Task, told: Callable[[int], None]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Lines of the manifest for the files written, in the corpus's order, and the files' columns."""
    made = features(job.data.train, task, job.data.shuffle_rows, job.train.seed)
    made.context.target_max_block_size = FILE_BYTES
    lines = made.map_batches(blocks.Write(job.output), batch_size=None, batch_format="pyarrow", num_cpus=APART)
    files, rows = [], 0
    with surfaced():
        for line in lines.iter_rows():
            rows += line["rows"]
            told(rows)
            files.append({key: line[key] for key in ("name", "rows", "tokens", "sha256")})
    return files, blocks.columns(job.output, files)


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
    """The model's, or one with a tokenizer trained on the corpus; the tokenizer is kept in the store."""
    model, near = job.model, nearest(job.output)
    if model is not None and (model.tokenizer or not model.from_.startswith("new:")):
        found = processor(model, near)
        _keep(job.output, found.tokenizer)
        return found
    tokenizer = train_tokenizer(job.data.train, record, job.data.tokenizer)
    folder = _keep(job.output, tokenizer)
    return processor(model.model_copy(update={"tokenizer": folder}), near) if model else Processor(tokenizer)


def _keep(output: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Save the tokenizer in the store; the local folder that has it."""
    folder = place.join(output, "tokenizer")
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(Path(scratch, "tokenizer"))
        place.upload(Path(scratch, "tokenizer"), folder)
    return str(place.local_copy(folder))
