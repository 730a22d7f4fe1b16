"""Sources of a job → Ray Datasets of records, of features.

It does not know what the features mean, nor who learns from them.  Everything is lazy and streams: a shard is read,
encoded and handed on while the next one is still on disk.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import ray
from transformers import PreTrainedTokenizerFast

from llmray.corpus import tokenizer
from llmray.corpus.record import Bad, Record
from llmray.corpus.source import is_store, read, shards
from llmray.job.data import Source, Tokenizer
from llmray.job.errors import DataError
from llmray.stream import blocks
from llmray.stream.errors import surfaced
from llmray.stream.steps import Encode, Read, Shuffle
from llmray.tasks.base import Task

Rows: TypeAlias = "ray.data.Dataset"
"""In quotes, because naming it imports Ray Data, without which a run from a store starts sooner."""
BLOCK_BYTES = 1 << 20
"""Ray Data hands blocks on at this size: its default of 128 MB would hold a first batch back for seconds."""
APART = 0.5
"""CPUs of a step that must not be fused with the one before, which takes 1: fused, Ray would gather as many shards for
one task as the step wants rows."""


def dataset(sources: Sequence[Source], record: type[Record], shuffle_rows: int = 0, seed: int = 0) -> Rows:
    """Records of all sources: mixed by their weights if they have some, else one source after another, and shuffled
    among `shuffle_rows` at a time.

    Raises `DataError` naming the path when nothing readable is there.
    """
    weights = [source.weight for source in sources if source.weight is not None]
    if len(weights) < 2:
        return _shuffled(_records([s for source in sources for s in shards(source)], record), shuffle_rows, seed)
    first, *others = (_records(shards(source), record) for source in sources)
    return _shuffled(first.mix(*others, weights=weights), shuffle_rows, seed)


def encoded(rows: Rows, task: Task) -> Rows:
    """Features of the task, ready for `stream.batches`."""
    return rows.map_batches(Encode(task), batch_size=None, batch_format="pyarrow")


def features(sources: Sequence[Source], task: Task, shuffle_rows: int = 0, seed: int = 0) -> Rows:
    """Features of sources: encoded as they stream, or as `prepare` stored them."""
    stored = [source for source in sources if is_store(source)]
    if not stored:
        return encoded(dataset(sources, task.record, shuffle_rows, seed), task)
    if len(sources) > 1:
        raise DataError(f"{stored[0].path}: a prepared store stands alone; prepare the other sources into it")
    files = blocks.checked(stored[0], task)["shards"]
    return _shuffled(each(len(files), blocks.ReadBlocks(stored[0].path, files)), shuffle_rows, seed)


def labelled(sources: Sequence[Source], task: Task) -> list[str]:
    """The different labels of records, or of what `prepare` stored of them, sorted; numbers as numbers."""
    rows = features(sources, task) if any(map(is_store, sources)) else dataset(sources, task.record)
    with surfaced():
        found = rows.select_columns("label").unique("label")
    return sorted(found, key=int if all(map(str.isdecimal, found)) else str)


def train_tokenizer(
    sources: Sequence[Source],
    record: type[Record],
    wanted: Tokenizer,
    on_bad: Callable[[Bad], None] | None = None,
    extra: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """A tokenizer of the sources' first `sample_rows` rows, an equal share of each source; `on_bad` as in `read`,
    `extra` as in `tokenizer.train`."""
    texts = first_texts(sources, record, wanted.sample_rows, on_bad)
    return tokenizer.train(texts, wanted.vocab_size, wanted.kind, extra)


def first_texts(
    sources: Sequence[Source], record: type[Record], rows: int, on_bad: Callable[[Bad], None] | None = None
) -> Iterator[str]:
    """Texts of the sources' first rows, an equal share of each; `on_bad` as in `read`."""
    share = -(-rows // len(sources))
    return (text for source in sources for text in _texts(source, record, share, on_bad))


def each(parts: int, step: Callable[[Any], Any]) -> Rows:
    """One task for each number below `parts`."""
    numbers = ray.data.range(parts, override_num_blocks=parts)
    numbers.context.target_max_block_size = BLOCK_BYTES
    return in_order(numbers).map_batches(step, batch_size=None)


def in_order(rows: Rows) -> Rows:
    """The same rows, in the corpus's order."""
    rows.context.execution_options.preserve_order = True
    return rows


def _records(work: Sequence[Any], record: type[Record]) -> Rows:
    return each(len(work), Read(work, record))


def _texts(source: Source, record: type[Record], rows: int, on_bad: Callable[[Bad], None] | None) -> Iterator[str]:
    for shard in shards(source):
        for columns in read(shard, record, min(rows, 256), on_bad):
            some = {name: values[:rows] for name, values in columns.items()}
            yield from tokenizer.texts_of(some, record)
            rows -= len(next(iter(some.values())))
            if rows <= 0:
                return


def _shuffled(rows: Rows, shuffle_rows: int, seed: int) -> Rows:
    if not shuffle_rows:
        return rows
    return rows.map_batches(Shuffle(seed), batch_size=shuffle_rows, batch_format="pyarrow", num_cpus=APART)
