"""What Ray Data's tasks do to a batch: read shards, shuffle, encode.

It does not know of Ray.  Tasks travel as bytes: processes that only pass them on (controllers, coordinators) need not
import torch and transformers for it, which is most of their start-up.
"""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from llmray.corpus.record import Record
from llmray.corpus.source import Shard, read

ANSWERS = pa.list_(pa.struct([("text", pa.string()), ("start", pa.int64())]))
TYPES = {"answers": ANSWERS, "image": pa.binary(), "captions": pa.list_(pa.string())}


class Read:
    """Shard numbers → records, as Ray Data wants it: a generator of blocks."""

    def __init__(self, work: Sequence[Shard], record: type[Record]) -> None:
        self.work, self.record = work, record
        self.schema = pa.schema([(f.name, TYPES.get(f.name, pa.string())) for f in fields(record)])

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        for number in batch["id"]:
            for columns in read(self.work[int(number)], self.record):
                yield pa.table(columns, schema=self.schema)


class Shuffle:
    """Each batch in an order that follows from the seed and its size."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, batch: pa.Table) -> pa.Table:
        order = np.random.default_rng([self.seed, batch.num_rows]).permutation(batch.num_rows)
        return batch.take(pa.array(order))


class Encode:
    """Records → features of a task."""

    def __init__(self, task: Any) -> None:
        self.packed = pickle.dumps(task)

    def __call__(self, batch: pa.Table) -> pa.Table:
        features = _unpacked(self.packed).encode(batch.to_pydict())
        return pa.table({name: pa.array(values) for name, values in features.items()})


@lru_cache(maxsize=2)
def _unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)
