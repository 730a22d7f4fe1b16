"""A file's bytes and lines, uncompressed, wherever it lies.  It does not know what they mean."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TypeAlias

import pyarrow as pa

from llmray.corpus.damage import ERRORS, cut, shown, unreachable
from llmray.corpus.record import Bad
from llmray.store import place

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

Line: TypeAlias = tuple[int, str]
"""Its number, from 1, and its text."""


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """The file's bytes, uncompressed as its name says.  Raises `DataError` when it cannot be opened."""
    packed = path.lower().endswith(".zst")  # of which fsspec knows nothing without a further package
    with ExitStack() as stack:
        try:
            file = stack.enter_context(place.open_file(path, "rb", None if packed else "infer"))
        except OSError as error:
            raise unreachable(path, error) from None
        yield io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")) if packed else file


def lines(path: str) -> Iterator[Line | Bad]:
    """Lines of a text file, without line ends or byte-order mark."""
    number = 0
    with opened(path) as file:
        try:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    yield Bad(f"{path}, line {number}", *not_utf8(error), shown(line.rstrip(b"\r\n")))
                else:
                    yield number, text.rstrip("\r\n")
        except ERRORS as error:
            yield cut(path, f"line {number}", error)


def text_of(path: str) -> str | Bad:
    """All of a text file, or the first thing that is wrong with it."""
    texts = []
    for line in lines(path):
        if isinstance(line, Bad):
            return line
        texts.append(line[1])
    return "\n".join(texts)


def not_utf8(error: UnicodeDecodeError) -> tuple[str, str]:
    """A `Bad`'s kind and reason."""
    return "not UTF-8", f"not UTF-8: {error.reason} at byte {error.start}"
