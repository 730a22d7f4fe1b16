"""One worker's batches, pass after pass, from where it stopped.  It does not know what is learned from them."""

import itertools
from collections.abc import Iterator

from ray.data import DataIterator

from llmray.stream.errors import surfaced
from llmray.tasks.base import Task, Tensors

PREFETCH_BATCHES = 4


def batches(
    shard: DataIterator, task: Task, batch_rows: int, *, skip: int = 0, epochs: int | None = None
) -> Iterator[Tensors]:
    """Collated batches in the corpus's order, `epochs` passes (None: without end), the first `skip` left out.

    Endless passes give full batches only; the rest of a pass is dropped, so that all workers step together.
    """
    passes = itertools.count() if epochs is None else range(epochs)
    rows = itertools.chain.from_iterable(_one_pass(shard, batch_rows, drop_last=epochs is None) for _ in passes)
    for features in itertools.islice(rows, skip, None):
        yield task.collate(features)


def _one_pass(shard: DataIterator, batch_rows: int, drop_last: bool) -> Iterator[dict[str, list]]:
    with surfaced():
        for table in shard.iter_batches(
            batch_size=batch_rows, batch_format="pyarrow", drop_last=drop_last, prefetch_batches=PREFETCH_BATCHES
        ):
            yield table.to_pydict()
