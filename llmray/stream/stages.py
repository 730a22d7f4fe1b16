"""The work of `prepare` on one part of a corpus: clean a shard, encode a shard, encode clean documents.

It does not know of Ray, nor of other parts.  What a part gives is written under names that follow from its content;
its line, written last, commits it, so that a part which was done before an interruption is not done again.
"""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmray.corpus.record import Columns, Document
from llmray.corpus.refine import Quarantine, Refine
from llmray.corpus.source import Shard, read
from llmray.corpus.tables import CRAWLS, kind_of
from llmray.corpus.tally import Tally
from llmray.store import place
from llmray.stream.blocks import Write
from llmray.stream.steps import READ_ROWS, arrow
from llmray.tasks.base import Task

FILE_BYTES = 32 << 20
"""A file of blocks is closed at this size, uncompressed."""
CHUNK_BYTES = 8 << 20
"""Text of documents that is packed at once."""
QUARANTINE = "quarantine"

Line = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of source number `source`: a shard, or (`file`) clean documents of it but for the rows of `drops`."""

    source: int
    shard: Shard
    file: str = ""
    drops: tuple[int, ...] = ()

    def name(self, settings: Any) -> str:
        """A name for what these settings make of it."""
        told = json.dumps([asdict(self) | {"shard": repr(self.shard)}, settings], sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Step:
    """Numbers of parts → their lines, for Ray Data."""

    work: Callable[[Part, str], Line]
    todo: Sequence[tuple[Part, str]]
    folder: str

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        for number in batch["id"]:
            part, name = self.todo[int(number)]
            place.write_text(place.join(self.folder, f"{name}.json"), json.dumps(self.work(part, name)))
            yield pa.table({"done": [name]})


@dataclass(frozen=True)
class Cleaning:
    """A shard → files of clean documents, and its tally."""

    refine: Refine
    output: str
    on_error: str | None

    def __call__(self, part: Part, name: str) -> Line:
        files, tally = self.refine(part.shard, name, quarantine_of(part, name, self.output, self.on_error))
        return {"files": files, "tally": tally.model_dump()}


class Encoding:
    """A shard, or clean documents → files of blocks, and its tally."""

    def __init__(self, task: Task, output: str, on_error: str | None) -> None:
        self.packed = pickle.dumps(task)
        self.output, self.on_error = output, on_error

    def __call__(self, part: Part, name: str) -> Line:
        task: Task = pickle.loads(self.packed)
        tally, write = Tally(), Write(self.output)
        quarantine = quarantine_of(part, name, self.output, self.on_error)
        files: list[Line] = []
        waiting: list[pa.Table] = []
        for columns in self._columns(part, task, quarantine):
            rows, features = len(next(iter(columns.values()))), task.encode(columns)
            tally.read += rows
            tally.kept += rows
            tally.cuts += sum(map(len, features["lengths"])) - rows if "lengths" in features else 0
            waiting.append(arrow(features))
            if sum(table.nbytes for table in waiting) >= FILE_BYTES:
                files += write(pa.concat_tables(waiting)).to_pylist()
                waiting = []
        if sum(table.num_rows for table in waiting):
            files += write(pa.concat_tables(waiting)).to_pylist()
        if quarantine:
            quarantine.close(tally)
        tally.tokens = sum(file["tokens"] for file in files)
        return {"files": files, "tally": tally.model_dump()}

    def _columns(self, part: Part, task: Task, quarantine: Quarantine | None) -> Iterator[Columns]:
        if part.file:
            return _documents(part)
        found = read(part.shard, task.record, READ_ROWS, quarantine.take if quarantine else None)
        return _chunks(text for columns in found for text in columns["text"]) if task.record is Document else found


def quarantine_of(part: Part, name: str, output: str, on_error: str | None) -> Quarantine | None:
    """Where a shard's damaged records go; None where the first is to stop everything."""
    paths = part.shard.paths
    crawled = bool(paths) and part.shard.source.target is None and kind_of(paths[0]) in CRAWLS
    if on_error == "fail" or part.file or (on_error is None and not crawled):
        return None
    return Quarantine(place.join(output, QUARANTINE, f"{name}.jsonl"))


def _documents(part: Part) -> Iterator[Columns]:
    with place.open_file(part.file) as file:
        texts = pq.read_table(file, columns=["text"])["text"]
    kept = np.setdiff1d(np.arange(len(texts)), part.drops)
    yield from _chunks(iter(texts.take(pa.array(kept)).to_pylist()))


def _chunks(texts: Iterator[str]) -> Iterator[Columns]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_BYTES:
            yield {"text": chunk}
            chunk, size = [], 0
    if chunk:
        yield {"text": chunk}
