"""Files of rows → records: JSON Lines, Parquet, text, SQuAD JSON, parallel text, compressed or not.

It does not know how files are spread over tasks.  Every error is a `DataError` that names file and record.
"""

import difflib
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import zip_longest
from typing import Any

import pyarrow.parquet as pq

from llmray.corpus.images import Images
from llmray.corpus.record import Picture, Question, Record
from llmray.job.errors import DataError
from llmray.job.schema import Source
from llmray.store import place

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
BARE = (".jsonl", ".ndjson", ".json", ".parquet", ".txt")
SUFFIXES = tuple(suffix + end for suffix in BARE for end in ("", *COMPRESSED))

Row = tuple[int, Mapping[str, Any]]
"""A row and its number, from 1, for errors."""


def records_of(source: Source, path: str, record: type[Record]) -> Iterator[Record]:
    """Records of one file."""
    kind = _kind(path)
    if source.target is not None:
        rows: Iterator[Row] = _parallel(path, source.target)
    elif kind in (".jsonl", ".ndjson"):
        rows = _json_lines(path)
    elif kind == ".json":
        rows = _squad(path)
    elif kind == ".parquet":
        rows = _parquet(path)
    elif kind == ".txt":
        rows = _text(path)
    else:
        raise DataError(
            f"{path}: unknown kind of file; allowed: {', '.join(BARE)}, compressed or not ({' '.join(COMPRESSED)})"
        )
    images = Images(source.images) if source.images else None
    empty = True
    for number, row in rows:
        empty = False
        if all(_matches(row, path, number, column, wanted) for column, wanted in source.where.items()):
            yield _record(source, path, number, row, record, images)
    if empty:
        raise DataError(f"{path}: the file is empty")


def _kind(path: str) -> str:
    bare = next((path[: -len(end)] for end in COMPRESSED if path.endswith(end)), path)
    return bare[bare.rfind(".") :].lower() if "." in bare.rsplit("/", 1)[-1] else ""


def _matches(row: Mapping[str, Any], path: str, number: int, column: str, wanted: Any) -> bool:
    value = _column(row, path, number, column)
    return str(value) in [str(w) for w in wanted] if isinstance(wanted, list) else str(value) == str(wanted)


def _column(row: Mapping[str, Any], path: str, number: int, column: str) -> Any:
    if column in row:
        return row[column]
    near = difflib.get_close_matches(column, row, 1, 0.4)
    raise DataError(
        f"{path}, row {number}: no column {column!r}; found: {', '.join(map(str, row))}"
        + (f"; did you mean {near[0]!r}?" if near else "")
        + "; `columns` of the source maps ours to yours"
    )


def _record(
    source: Source, path: str, number: int, row: Mapping[str, Any], record: type[Record], images: Images | None
) -> Record:
    if record is Picture:
        return _picture(source, path, number, row, images)
    values = {f.name: _value(source, path, number, row, f.name) for f in fields(record)}
    if record is Question and not isinstance(values["answers"], list):
        raise DataError(f"{path}, row {number}: answers must be a list of {{text, start}}; found {values['answers']!r}")
    return record(**values)


def _value(source: Source, path: str, number: int, row: Mapping[str, Any], name: str) -> Any:
    wanted = source.columns.get(name, name)
    if "{" not in wanted:
        return _column(row, path, number, wanted)
    try:
        return wanted.format_map(row)
    except KeyError as error:
        return _column(row, path, number, str(error.args[0]))


def _picture(source: Source, path: str, number: int, row: Mapping[str, Any], images: Images | None) -> Picture:
    plural = "captions" in source.columns or ("captions" in row and "caption" not in source.columns)
    captions = _value(source, path, number, row, "captions" if plural else "caption")
    image = _value(source, path, number, row, "image")
    if not isinstance(image, bytes):
        if images is None:
            raise DataError(f"{path}, row {number}: {image!r} names a picture; say where they are with `images`")
        image = images.read(str(image), f"{path}, row {number}")
    return Picture(image, [str(c) for c in captions] if plural else [str(captions)])


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Lines of a text file, numbered from 1, without line ends or byte-order mark."""
    number = 0
    try:
        with place.open_file(path, "rb", "infer") as file:
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8: {error.reason} at byte {error.start}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}, after line {number}: damaged or cut short: {error}") from None


def _json_lines(path: str) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON: {error.msg} at column {error.colno}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a row is a JSON object; found {type(row).__name__}")
        yield number, row


def _text(path: str) -> Iterator[Row]:
    """Documents are separated by blank lines."""
    paragraph: list[str] = []
    number = 0
    for _, line in _lines(path):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            number += 1
            yield number, {"text": "\n".join(paragraph)}
            paragraph = []
    if paragraph:
        yield number + 1, {"text": "\n".join(paragraph)}


def _parallel(path: str, target: str) -> Iterator[Row]:
    for one, other in zip_longest(_lines(path), _lines(target)):
        if one is None or other is None:
            short, count = (path, other[0] - 1) if one is None else (target, one[0] - 1)
            raise DataError(f"{short}: ends after {count} lines, its partner {target if one is None else path} goes on")
        yield one[0], {"source": one[1], "target": other[1]}


def _parquet(path: str) -> Iterator[Row]:
    try:
        with place.open_file(path) as file:
            number = 0
            for batch in pq.ParquetFile(file).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from None


def _squad(path: str) -> Iterator[Row]:
    """Questions of a SQuAD file, v1.1 or v2.0 (https://rajpurkar.github.io/SQuAD-explorer)."""
    text = "\n".join(line for _, line in _lines(path))
    if not text.strip():
        return
    try:
        articles = json.loads(text)["data"]
        found = [(a.get("title", ""), p["context"], q) for a in articles for p in a["paragraphs"] for q in p["qas"]]
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}; rows of JSON are `.jsonl`") from None
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not in SQuAD's form (data → paragraphs → qas): {error} is missing") from None
    for number, (title, context, question) in enumerate(found, 1):
        answers = [{"text": a["text"], "start": a["answer_start"]} for a in question["answers"]]
        yield number, {"id": question["id"], "title": title, "context": context, "question": question["question"],
                       "answers": answers}  # fmt: skip
