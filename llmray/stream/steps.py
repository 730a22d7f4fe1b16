"""What Ray Data's tasks do: read shards, shuffle, encode.

It does not know of Ray.  Tasks travel as bytes: processes that only pass them on (controllers, coordinators) need not
import torch and transformers for it, which is most of their start-up.
"""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from llmray.corpus.record import Columns, Record
from llmray.corpus.source import BATCH_BYTES, Shard, read

READ_ROWS = 500
"""Records that are read, and encoded, at once, if they are small; language models pack within them."""

ANSWERS = pa.list_(pa.struct([("text", pa.string()), ("start", pa.int64())]))
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TYPES = {"answers": ANSWERS, "messages": MESSAGES, "image": pa.binary(), "captions": pa.list_(pa.string())}
IDS = pa.list_(pa.int64())


class Read:
    """Shard numbers → records, as Ray Data wants it: a generator of blocks."""

    def __init__(self, work: Sequence[Shard], record: type[Record]) -> None:
        self.work, self.record = work, record
        self.schema = pa.schema([(f.name, TYPES.get(f.name, pa.string())) for f in fields(record)])

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        for number in batch["id"]:
            for columns in read(self.work[int(number)], self.record, READ_ROWS):
                yield pa.table(columns, schema=self.schema)


class Shuffle:
    """Each batch in an order that follows from the seed and its size."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, batch: pa.Table) -> pa.Table:
        order = np.random.default_rng([self.seed, batch.num_rows]).permutation(batch.num_rows)
        return batch.take(pa.array(order))


class Encode:
    """Records → features of a task, in pieces of about what `Read` makes, so that the first is ready soon."""

    def __init__(self, task: Any) -> None:
        self.packed = pickle.dumps(task)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        task = _unpacked(self.packed)
        step = max(1, min(READ_ROWS, BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, step):
            table = arrow(task.encode(batch.slice(start, step).to_pydict()))
            if table.num_rows:
                yield table


def arrow(features: Columns) -> pa.Table:
    """Features as columns of Arrow; ids of 32 bits, which is half of what would be inferred."""
    columns = {name: _column(values) for name, values in features.items()}
    return pa.table({name: c.cast(pa.list_(pa.int32())) if c.type == IDS else c for name, c in columns.items()})


def _column(values: Sequence[Any]) -> pa.Array:
    if not (values and isinstance(values[0], np.ndarray)):
        return pa.array(values)
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)  # a hundred times faster than value by value
    return pa.ListArray.from_arrays(ends, np.concatenate(values))


def rows_of(table: pa.Table) -> Columns:
    """A table's columns as one value a row; ids as read-only numpy rows, not copied, since that is ten times faster."""
    return {name: _values(table[name].combine_chunks()) for name in table.column_names}


def _values(column: Any) -> list[Any]:
    if not pa.types.is_list(column.type) or not pa.types.is_primitive(column.type.value_type):
        return list(column.to_pylist())
    ids, ends = column.values.to_numpy(), column.offsets.to_numpy()
    return [ids[a:b] for a, b in pairwise(ends)]


@lru_cache(maxsize=2)
def _unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)
