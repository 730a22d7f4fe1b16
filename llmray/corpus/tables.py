"""Files → rows: JSON Lines, Parquet, text, SQuAD's and COCO's JSON, parallel text, compressed or not.

It does not know which rows are wanted.  Files are read as a stream, but for `.json`, which is one value.  Every error
is a `DataError` that names file and line.
"""

import io
import json
import lzma
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmray.corpus.rows import Row
from llmray.job.errors import DataError
from llmray.store import place

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
TEXTUAL = (".jsonl", ".ndjson", ".json", ".txt")
SUFFIXES = (".parquet", *(suffix + end for suffix in TEXTUAL for end in ("", *COMPRESSED)))

DOCUMENT_CHARS = 1 << 20
"""Text without blank lines is cut into documents of about this length."""

PARQUET_ROWS = 256


def kind_of(path: str) -> str:
    """A path's suffix below that of its compression.  Raises `DataError` where it is none that can be read."""
    end = next((suffix for suffix in SUFFIXES if path.lower().endswith(suffix)), None)
    if end is None:
        raise DataError(
            f"{path}: unknown kind of file; allowed: .parquet, and {', '.join(TEXTUAL)}, compressed or not"
            f" ({' '.join(COMPRESSED)}); parallel text of any name has a `target`"
        )
    return "." + end.split(".")[1]


def rows_of(path: str, target: str | None = None, groups: range | None = None) -> Iterator[Row]:
    """Rows of one file; `target` is its translation, `groups` the row groups wanted of a Parquet file."""
    rows = _parallel(path, target) if target is not None else _READERS[kind_of(path)](path)
    if groups is not None:
        rows = _parquet(path, groups)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DataError(f"{path}: the file is empty")


def row_groups(path: str) -> list[tuple[int, int]]:
    """Rows and bytes of each row group of a Parquet file."""
    with _parquet_file(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        return [(group.num_rows, group.total_byte_size) for group in groups]


@contextmanager
def _bytes(path: str) -> Iterator[IO[bytes]]:
    """The file's bytes, uncompressed."""
    if not path.lower().endswith(".zst"):  # of which fsspec knows nothing without a further package
        with place.open_file(path, "rb", "infer") as file:
            yield file
        return
    with place.open_file(path) as raw:
        yield io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Lines of a text file, numbered from 1, without line ends or byte-order mark."""
    number = 0
    try:
        with _bytes(path) as file:
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8: {error.reason} at byte {error.start}") from None
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or 'no such file'}") from None
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}, after line {number}: damaged or cut short: {error}") from None


def _json_lines(path: str) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: a row is a JSON object; found {type(row).__name__}")
        yield where, row


def _text(path: str) -> Iterator[Row]:
    """Documents of a text file: groups of lines between blank lines, as many as there are."""
    first, size = 0, 0
    lines: list[str] = []
    for number, line in _lines(path):
        if line.strip():
            first, size = first if lines else number, size + len(line)
            lines.append(line)
        if lines and (not line.strip() or size > DOCUMENT_CHARS):
            yield f"{path}, line {first}", {"text": "\n".join(lines)}
            lines, size = [], 0
    if lines:
        yield f"{path}, line {first}", {"text": "\n".join(lines)}


def _parallel(path: str, target: str) -> Iterator[Row]:
    for one, other in zip_longest(_lines(path), _lines(target)):
        if one is None or other is None:
            short, count = (path, other[0] - 1) if one is None else (target, one[0] - 1)
            partner = target if one is None else path
            raise DataError(
                f"{short}: ends after {count} lines, its partner {partner} goes on; each line must have its translation"
            )
        yield f"{path}, line {one[0]}", {"source": one[1], "target": other[1]}


@contextmanager
def _parquet_file(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with place.open_file(path) as file:
            yield pq.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from None


def _parquet(path: str, groups: Sequence[int] | None = None) -> Iterator[Row]:
    with _parquet_file(path) as file:
        wanted = range(file.metadata.num_row_groups) if groups is None else groups
        number = sum(file.metadata.row_group(i).num_rows for i in range(wanted[0])) if wanted else 0
        for group in wanted:
            for batch in file.iter_batches(PARQUET_ROWS, [group]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row


def _json(path: str) -> Iterator[Row]:
    """SQuAD (https://rajpurkar.github.io/SQuAD-explorer) or COCO captions (https://cocodataset.org/#format-data)."""
    text = "\n".join(line for _, line in _lines(path))
    if not text.strip():
        return
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}; rows of JSON are `.jsonl`") from None
    try:
        if isinstance(tree, dict) and "annotations" in tree:
            yield from _coco(path, tree)
        else:
            yield from _squad(path, tree)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: neither in SQuAD's form (data → paragraphs → qas) nor in COCO's (images, annotations):"
            f" {error} is missing; rows of JSON are `.jsonl`"
        ) from None


def _squad(path: str, tree: Any) -> Iterator[Row]:
    found = [(a.get("title", ""), p["context"], q) for a in tree["data"] for p in a["paragraphs"] for q in p["qas"]]
    for number, (title, context, question) in enumerate(found, 1):
        row = {"title": title, "context": context} | {name: question[name] for name in ("id", "question", "answers")}
        yield f"{path}, question {number}", row


def _coco(path: str, tree: Any) -> Iterator[Row]:
    captions = defaultdict(list)
    for annotation in tree["annotations"]:
        captions[annotation["image_id"]].append(annotation["caption"])
    for number, image in enumerate(tree["images"], 1):
        if captions[image["id"]]:
            row = {"image": image["file_name"], "captions": captions[image["id"]]}
            yield f"{path}, image {number}", image | row


_READERS = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".txt": _text,
    ".parquet": _parquet,
}
