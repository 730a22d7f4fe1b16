"""A source of a job → shards → batches of records.

It does not know about Ray, nor what a task makes of the records.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice

from llmray.corpus import shapes
from llmray.corpus.record import Columns, Record
from llmray.corpus.rows import Maker
from llmray.corpus.tables import SUFFIXES, kind_of, row_groups, rows_of
from llmray.job.errors import DataError
from llmray.job.schema import Source
from llmray.store import place

BUILTIN = "builtin:"
BUILTIN_SHARD_ROWS = 1000
BATCH_BYTES = 1 << 20
"""A batch ends when its texts and pictures reach this size, however few its rows."""
PARQUET_SHARD_BYTES = 64 << 20
FEW_FILES = 16
"""More Parquet files than this are parallel enough and are not split."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """A part of a source that one task reads: files, row groups of a file, or a range of the built-in corpus."""

    source: Source
    paths: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0
    whole: bool = False
    """Whether it is all of the source."""


def is_store(source: Source) -> bool:
    """Whether a source is a store that `llmray prepare` made: encoded blocks, not records."""
    return not source.path.startswith(BUILTIN) and place.exists(place.join(source.path, MANIFEST))


def shards(source: Source) -> list[Shard]:
    """Split a source into parts.  Raises `DataError` naming the path where nothing readable is there."""
    if source.path.startswith(BUILTIN):
        return _builtin(source)
    if is_store(source):
        raise DataError(
            f"{source.path}: a prepared store holds a task's encoded blocks, no records; only `data.train` and"
            " `data.eval` of `llmray train` read it; name the corpus that it was made from"
        )
    found = _found(source)
    if source.limit:  # counts over all files, so one reader must see them all
        return [Shard(source, tuple(found), whole=True)]
    parts = [shard for path in found for shard in _parts(source, path, split=len(found) <= FEW_FILES)]
    return parts if len(parts) > 1 else [replace(parts[0], whole=True)]


def read(shard: Shard, record: type[Record], batch_rows: int = 256) -> Iterator[Columns]:
    """Records of a shard as columns, at most `batch_rows` at a time.  Raises `DataError` naming file and record."""
    names = [field.name for field in fields(record)]
    batch: list[Record] = []
    size = 0
    for one in _records(shard, record):
        batch.append(one)
        size += sum(len(getattr(one, name)) for name in names)
        if len(batch) == batch_rows or size >= BATCH_BYTES:
            yield {name: [getattr(row, name) for row in batch] for name in names}
            batch, size = [], 0
    if batch:
        yield {name: [getattr(row, name) for row in batch] for name in names}


def _builtin(source: Source) -> list[Shard]:
    rows = shapes.parse_uri(source.path).rows
    given = [key for key in ("target", "images", "columns", "where") if getattr(source, key)]
    if given:
        raise DataError(f"{source.path}: the built-in corpus takes no {', '.join(given)}; remove from the source")
    rows = min(rows, source.limit or rows)
    starts = range(0, rows, BUILTIN_SHARD_ROWS)
    return [Shard(source, start=at, stop=min(at + BUILTIN_SHARD_ROWS, rows)) for at in starts]


def _found(source: Source) -> list[str]:
    """Files of a source, each of a kind that can be read."""
    try:
        found = place.expand(source.path, SUFFIXES)
    except OSError as error:
        raise DataError(f"{source.path}: cannot be read: {error}") from None
    if not found:
        raise DataError(_nothing(source.path))
    if source.target is None:
        for path in found:
            kind_of(path)
    elif len(found) > 1:
        raise DataError(f"{source.path}: parallel text is one file and its `target`; found {len(found)} files there")
    elif not place.exists(source.target):
        raise DataError(_nothing(source.target))
    return found


def _nothing(path: str) -> str:
    folder, _, name = path.rstrip("/").rpartition("/")
    near = difflib.get_close_matches(name, place.listdir(folder or "."), 1, 0.5)
    return (
        f"{path}: nothing to read there: no such file, or a folder or glob without files of the kinds"
        f" {', '.join(SUFFIXES)}"
        + (f"; did you mean {place.join(folder, near[0]) if folder else near[0]}?" if near else "")
    )


def _parts(source: Source, path: str, split: bool) -> list[Shard]:
    """One shard a file; a large Parquet file in runs of row groups of at least `PARQUET_SHARD_BYTES`."""
    if not split or source.target is not None or kind_of(path) != ".parquet":
        return [Shard(source, (path,))]
    parts: list[Shard] = []
    start, size = 0, 0
    groups = row_groups(path)
    for number, (_, held) in enumerate(groups, 1):
        size += held
        if size >= PARQUET_SHARD_BYTES or number == len(groups):
            parts.append(Shard(source, (path,), start, number))
            start, size = number, 0
    return parts if len(parts) > 1 else [Shard(source, (path,))]


def _records(shard: Shard, record: type[Record]) -> Iterator[Record]:
    if not shard.paths:
        address = shapes.parse_uri(shard.source.path)
        return shapes.records(record, address.seed, address.split, shard.start, shard.stop)
    groups = range(shard.start, shard.stop) if shard.stop else None
    rows = (row for path in shard.paths for row in rows_of(path, shard.source.target, groups))
    return islice(Maker(shard.source, record).records(rows, shard.whole), shard.source.limit)
