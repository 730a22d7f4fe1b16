"""A source's path → the files that it stands for, each of a kind that can be read.

It does not open them.
"""

import difflib

import bracex

from llmray.corpus.damage import unreachable
from llmray.corpus.folders import rows_among
from llmray.corpus.tables import kind_of, kinds
from llmray.job.data import Source
from llmray.job.errors import DataError
from llmray.store import place


def files(source: Source) -> list[str]:
    """Files of a file name, folder, glob or braces (`shard-{000..003}.tar`), in order.

    Raises `DataError` naming the path where nothing that can be read is there.
    """
    try:
        found = [path for name in _braces(source.path) for path in _files(name, source)]
        if source.target is not None:
            _require_partner(source, source.target, found)
    except OSError as error:
        raise unreachable(source.path, error) from None
    return found


def _braces(path: str) -> list[str]:
    return list(bracex.expand(path, limit=0)) if "{" in path and not place.exists(path) else [path]


def _files(name: str, source: Source) -> list[str]:
    found = rows = place.expand(name)
    if place.listdir(name):  # a folder may hold other things too
        rows = rows_among([path for path in found if kind_of(path)])
        if source.images:  # which may lie there, packed
            rows = [path for path in rows if kind_of(path) != ".tar"]
    if not rows:
        raise DataError(_nothing(name))
    unknown = [path for path in rows if not kind_of(path)]
    if unknown and source.target is None:
        raise DataError(
            f"{unknown[0]}: unknown kind of file; allowed: {kinds()}; parallel text, of any name, has a `target`"
        )
    return rows


def _require_partner(source: Source, target: str, found: list[str]) -> None:
    if len(found) > 1:
        raise DataError(f"{source.path}: parallel text is one file and its `target`; found {len(found)} files there")
    if not place.exists(target):
        raise DataError(_nothing(target))


def _nothing(path: str) -> str:
    folder, _, name = path.rstrip("/").rpartition("/")
    near = difflib.get_close_matches(name, place.listdir(folder or "."), 1, 0.5)
    thing = "file" if place.is_local(path) else "bucket or file"
    return (
        f"{path}: nothing to read there: no such {thing}, or a folder or glob without files of the kinds {kinds()}"
        + (f"; did you mean {place.join(folder, near[0]) if folder else near[0]}?" if near else "")
    )
