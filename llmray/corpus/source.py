"""A source of a job → shards → batches of records.

It does not know about Ray, nor what a task makes of the records.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import islice

from llmray.corpus import shapes
from llmray.corpus.damage import DamageError, unreachable
from llmray.corpus.find import files
from llmray.corpus.folders import is_picture
from llmray.corpus.parquet import row_groups
from llmray.corpus.record import Bad, Columns, Document, Record
from llmray.corpus.rows import Maker, Row
from llmray.corpus.tables import kind_of, rows_of
from llmray.job.data import Source
from llmray.job.errors import DataError
from llmray.store import place

BUILTIN = "builtin:"
BUILTIN_SHARD_ROWS = 1000
HUB = "hf:"
BATCH_BYTES = 1 << 20
"""A batch ends when its texts and pictures reach this size, however few its rows."""
PARQUET_SHARD_BYTES = 64 << 20
FEW_FILES = 16
"""More Parquet files than this are parallel enough and are not split."""
PICTURES_SHARD = 500
"""Pictures, each a file, that one task reads."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """A part of a source that one task reads: files, or, from `start` to `stop`, row groups of a file, rows of the
    built-in corpus, parts of a data set of the hub."""

    source: Source
    paths: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0
    whole: bool = False
    """Whether it is all of the source."""


def is_store(source: Source) -> bool:
    """Whether a source is a store that `llmray prepare` made: encoded blocks, not records."""
    if source.path.startswith((BUILTIN, HUB)):
        return False
    try:
        return place.exists(place.join(source.path, MANIFEST))
    except OSError as error:
        raise unreachable(source.path, error) from None


def shards(source: Source) -> list[Shard]:
    """Split a source into parts.  Raises `DataError` naming the path where nothing readable is there."""
    if source.path.startswith(BUILTIN):
        return _builtin(source)
    if source.path.startswith(HUB):
        return _of_hub(source)
    if is_store(source):
        raise DataError(
            f"{source.path}: a prepared store holds a task's encoded blocks, no records; only `data.train` and"
            " `data.eval` of `llmray train` read it; name the corpus that it was made from"
        )
    found = files(source)
    if source.limit:  # counts over all files, so one reader must see them all
        return [Shard(source, tuple(found), whole=True)]
    pictures = [path for path in found if is_picture(path)]
    parts = [Shard(source, tuple(some)) for some in _runs(pictures, PICTURES_SHARD)]
    for path in found:
        if not is_picture(path):
            parts += _parts(source, path, split=len(found) <= FEW_FILES)
    return parts if len(parts) > 1 else [replace(parts[0], whole=True)]


def read(
    shard: Shard, record: type[Record], batch_rows: int = 256, on_bad: Callable[[Bad], None] | None = None
) -> Iterator[Columns]:
    """Records of a shard as columns, at most `batch_rows` at a time.

    What cannot be read is told to `on_bad`, and reading goes on; without it the first is raised as a `DamageError` that
    names file and record.
    """
    names = [field.name for field in fields(record)]
    batch: list[Record] = []
    size = 0
    for one in islice(_good(_records(shard, record), on_bad), shard.source.limit):
        batch.append(one)
        size += sum(len(getattr(one, name)) for name in names)
        if len(batch) == batch_rows or size >= BATCH_BYTES:
            yield {name: [getattr(row, name) for row in batch] for name in names}
            batch, size = [], 0
    if batch:
        yield {name: [getattr(row, name) for row in batch] for name in names}


def texts(source: Source) -> Iterator[str]:
    """Every text of a source, whatever its columns are called and mean.  Raises `DamageError` for the first `Bad`."""
    for shard in shards(source):
        if source.path.startswith(BUILTIN):
            yield from (text for columns in read(shard, Document) for text in columns["text"])
            continue
        for row in _rows(shard):
            if isinstance(row, Bad):
                raise DamageError(*astuple(row))
            yield from (value for value in row[1].values() if isinstance(value, str))


def _good(found: Iterable[Record | Bad], on_bad: Callable[[Bad], None] | None) -> Iterator[Record]:
    for one in found:
        if not isinstance(one, Bad):
            yield one
        elif on_bad is None:
            raise DamageError(*astuple(one))
        else:
            on_bad(one)


def _builtin(source: Source) -> list[Shard]:
    rows = shapes.parse_uri(source.path).rows
    given = [key for key in ("target", "images", "columns", "where") if getattr(source, key)]
    if given:
        raise DataError(f"{source.path}: the built-in corpus takes no {', '.join(given)}; remove from the source")
    rows = min(rows, source.limit or rows)
    starts = range(0, rows, BUILTIN_SHARD_ROWS)
    return [Shard(source, start=at, stop=min(at + BUILTIN_SHARD_ROWS, rows)) for at in starts]


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


def _runs(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (paths[at : at + size] for at in range(0, len(paths), size))


def _of_hub(source: Source) -> list[Shard]:
    from llmray.corpus import hub  # imports `datasets`, and that torch, which takes seconds

    given = [key for key in ("target", "images") if getattr(source, key)]
    if given:
        raise DataError(f"{source.path}: a data set of the hub takes no {', '.join(given)}; remove from the source")
    parts = hub.parts(source.path)
    if source.limit or parts == 1:
        return [Shard(source, stop=parts, whole=True)]
    return [Shard(source, start=part, stop=part + 1) for part in range(parts)]


def _records(shard: Shard, record: type[Record]) -> Iterator[Record | Bad]:
    if shard.source.path.startswith(BUILTIN):
        address = shapes.parse_uri(shard.source.path)
        return shapes.records(record, address.seed, address.split, shard.start, shard.stop)
    return Maker(shard.source, record).records(_rows(shard), shard.whole)


def _rows(shard: Shard) -> Iterator[Row | Bad]:
    if shard.source.path.startswith(HUB):
        from llmray.corpus import hub

        return hub.rows(shard.source.path, shard.start, shard.stop)
    groups = range(shard.start, shard.stop) if shard.stop else None
    return (row for path in shard.paths for row in rows_of(path, shard.source.target, groups))
