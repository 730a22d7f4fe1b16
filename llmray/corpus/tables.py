"""Files → rows: the table of kinds, and the readers of lines.

It does not know which rows are wanted.  Files are read as a stream, but for `.json`, which is one value.  What is wrong
with a record becomes a `Bad` and reading goes on; a `Bad` too ends what is cut short.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import zip_longest

from llmray.corpus import delimited, folders, parquet, trees, web, webdataset, wiki
from llmray.corpus.damage import CUT, shown
from llmray.corpus.files import COMPRESSED, Line, lines
from llmray.corpus.images import PICTURES
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row

DOCUMENT_CHARS = 1 << 20
"""Text without blank lines is cut into documents of about this length."""


def kind_of(path: str) -> str | None:
    """A path's suffix below that of its compression; None where it is no kind that can be read."""
    found = NAME.search(path.lower().replace(".tgz", ".tar.gz"))
    if found is None or (found["packed"] and found["kind"] in NOT_PACKED):
        return None
    return found["kind"] if found["kind"] in KINDS else None


def kinds() -> str:
    """What can be read, for error messages."""
    packed = ", ".join(kind for kind in KINDS if kind not in NOT_PACKED)
    return (
        f".parquet, and {packed}, compressed or not ({' '.join(COMPRESSED)}), and pictures ({' '.join(PICTURES)}), each"
        " with a .txt of its name beside it"
    )


def rows_of(path: str, target: str | None = None, groups: range | None = None) -> Iterator[Row | Bad]:
    """Rows of one file; `target` is its translation, `groups` the row groups wanted of a Parquet file."""
    rows = _rows(path, target, groups)
    if target is None and kind_of(path) in CRAWLS:
        yield from rows
        return
    yield next(rows, Bad(path, "empty file", "the file is empty"))
    yield from rows


def _rows(path: str, target: str | None, groups: range | None) -> Iterator[Row | Bad]:
    if target is not None:
        return _parallel(path, target)
    rows = KINDS[kind_of(path) or ""](path) if groups is None else parquet.rows(path, groups)
    return folders.with_pictures(path, rows) if folders.is_metadata(path) else rows


def _json_lines(path: str) -> Iterator[Row | Bad]:
    for line in lines(path):
        if isinstance(line, Bad):
            yield line
        elif line[1].strip():
            yield _object(f"{path}, line {line[0]}", line[1])


def _object(where: str, text: str) -> Row | Bad:
    try:
        return trees.as_row(where, json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        return Bad(where, "not JSON", f"not JSON: {error}", shown(text))


def _text(path: str) -> Iterator[Row | Bad]:
    """Documents of a text file: groups of lines between blank lines, as many as there are; a damaged line ends one."""
    size = 0
    held: list[Line] = []
    for line in lines(path):
        good = None if isinstance(line, Bad) or not line[1].strip() else line
        if good:
            size += len(good[1])
            held.append(good)
        if held and (not good or size > DOCUMENT_CHARS):
            yield _document(path, held)
            held, size = [], 0
        if isinstance(line, Bad):
            yield line
    if held:
        yield _document(path, held)


def _document(path: str, held: list[Line]) -> Row:
    return f"{path}, line {held[0][0]}", {"text": "\n".join(text for _, text in held)}


def _parallel(path: str, target: str) -> Iterator[Row | Bad]:
    for number, (one, other) in enumerate(zip_longest(lines(path), lines(target)), 1):
        if isinstance(one, Bad) or isinstance(other, Bad):
            bad = [line for line in (one, other) if isinstance(line, Bad)]
            yield from bad
            if any(line.kind == CUT for line in bad):
                return
        elif one is None or other is None:
            short, partner = (path, target) if one is None else (target, path)
            reason = f"ends after {number - 1} lines, its partner {partner} goes on"
            yield Bad(short, "unequal length", f"{reason}; each line must have its translation")
            return
        else:
            yield f"{path}, line {number}", {"source": one[1], "target": other[1]}


KINDS: dict[str, Callable[[str], Iterator[Row | Bad]]] = {
    ".parquet": parquet.rows,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": trees.rows,
    ".csv": delimited.commas,
    ".tsv": delimited.tabs,
    ".txt": _text,
    ".tar": webdataset.samples,
    ".warc": web.crawl,
    ".wet": web.crawl,
    ".arc": web.crawl,
    ".xml": wiki.articles,
    **dict.fromkeys(PICTURES, folders.captioned),
}
CRAWLS = (".warc", ".wet", ".arc")
"""Kinds of file that may hold no page at all, and some of whose records are always damaged."""
NOT_PACKED = (".parquet", *PICTURES)
"""Kinds that hold compressed data of their own."""
NAME = re.compile(r"(?P<kind>\.[a-z]+)(?:-p\d+p\d+[^./]*)?(?P<packed>\.(?:gz|bz2|xz|zst))?$")
"""How the name of a file ends; a part of Wikipedia's dumps is `….xml-p1p41242.bz2`."""
