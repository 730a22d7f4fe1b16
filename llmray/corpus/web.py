"""Web crawls (WARC, WET, ARC) → rows: pages and their main text, read as a stream.

It does not know which pages are wanted, nor what a record holds.
"""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, TypeAlias

from llmray.corpus.captures import HEADER, Captures
from llmray.corpus.damage import CUT, ERRORS, cut, require_content, unreachable
from llmray.corpus.files import opened
from llmray.corpus.members import CHUNK_BYTES, MAGIC, members
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row
from llmray.store import place

LINE_BYTES = 1 << 16

Found: TypeAlias = tuple[str, Row | Bad | None]
"""Where in its file a record is, and what was found there: None where it is no page."""


def crawl(path: str) -> Iterator[Row | Bad]:
    """A row a page: `text`, `url`, `date`, `mime`, HTTP's `status`, and the `language` that the crawler found; the last
    two may be None.

    A damaged record (in its digest, length, header or gzip member) is a `Bad`, and the next that can be found follows.
    Each record has a gzip member of its own, as the standard advises; of a member that holds more nothing is taken.
    """
    after = "its beginning"
    with _raw(path) as file:
        try:
            packed = file.peek(len(MAGIC)).startswith(MAGIC)
            for at, found in (_packed if packed else _unpacked)(path, file):
                after = at
                if found:
                    yield found
        except ERRORS as error:
            yield cut(path, after, error)


@contextmanager
def _raw(path: str) -> Iterator[io.BufferedReader]:
    """The file with its gzip members, but without any other compression."""
    with ExitStack() as stack:
        try:
            file: Any = stack.enter_context(place.open_file(path) if path.lower().endswith(".gz") else opened(path))
        except OSError as error:
            raise unreachable(path, error) from None
        yield io.BufferedReader(file, CHUNK_BYTES)


def _packed(path: str, file: IO[bytes]) -> Iterator[Found]:
    captures = Captures()
    for start, member in members(file):
        at = f"byte {start}"
        where = f"{path}, {at}"
        try:
            line = _line(member)
            found = captures.read(where, member, line) if line else None
            if _line(member) and not isinstance(found, Bad):
                found = Bad(where, "shared gzip member", "several records in one; `warcio recompress` parts them")
            while member.read(CHUNK_BYTES):
                pass
        except ERRORS as error:
            require_content(path, error)
            found = Bad(where, CUT, f"damaged or cut short: {error}")
        yield at, found


def _unpacked(path: str, file: IO[bytes]) -> Iterator[Found]:
    captures = Captures()
    number, lost = 1, False
    while line := _line(file):
        at = f"record {number}"
        found = captures.read(f"{path}, {at}", file, line)
        in_damage = lost and isinstance(found, Bad) and found.kind == HEADER
        if not in_damage:
            yield at, found
            number += 1
        lost = isinstance(found, Bad)


def _line(stream: IO[bytes]) -> bytes:
    """The next line that is not blank; empty at the end."""
    while (line := stream.readline(LINE_BYTES)) and not line.strip():
        pass
    return line
