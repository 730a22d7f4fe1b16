"""One worker's batches, pass after pass, from where it stopped.  It does not know what is learned from them."""

import itertools
from collections.abc import Generator, Iterator

import ray

from llmray.corpus.record import Columns
from llmray.job.errors import DataError
from llmray.stream.errors import surfaced
from llmray.stream.steps import rows_of
from llmray.tasks.base import Task, Tensors

PREFETCH_BATCHES = 4


def batches(
    shard: "ray.data.DataIterator", task: Task, batch_rows: int, *, skip: int = 0, epochs: int | None = None
) -> Generator[Tensors]:
    """Collated batches in the corpus's order, `epochs` passes (None: without end), the first `skip` left out.

    Endless passes give full batches only; the rest of a pass is dropped, so that all workers step together.
    """
    passes = iter(itertools.count() if epochs is None else range(epochs))
    for _ in passes:
        length = 0
        for features in _one_pass(shard, batch_rows, drop_last=epochs is None):
            length += 1
            if length > skip:
                yield task.collate(features)
        if epochs is None and not length:
            raise DataError(f"data.train: a worker's share of the rows is less than a batch ({batch_rows} rows)")
        whole, skip = divmod(max(skip - length, 0), max(length, 1))
        next(itertools.islice(passes, whole, whole), None)  # all passes are alike: no need to read what is skipped


def _one_pass(shard: "ray.data.DataIterator", batch_rows: int, drop_last: bool) -> Iterator[Columns]:
    with surfaced():
        for table in shard.iter_batches(
            batch_size=batch_rows, batch_format="pyarrow", drop_last=drop_last, prefetch_batches=PREFETCH_BATCHES
        ):
            yield rows_of(table)
