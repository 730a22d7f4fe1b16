"""A file of gzip members (https://www.rfc-editor.org/rfc/rfc1952) → the members, each a stream of its own.

It does not know what they hold.  After a damaged one it goes on with the next that can be found.
"""

import io
import zlib
from collections.abc import Iterator
from typing import IO, Any

MAGIC = b"\x1f\x8b\x08"
"""How a member begins: gzip, deflated."""
CHUNK_BYTES = 1 << 16


def members(file: IO[bytes]) -> Iterator[tuple[int, IO[bytes]]]:
    """Where each member begins, in bytes, and its content, which is to be read to its end before the next is asked for.

    Reading raises `zlib.error` where a member is damaged, its checksum included, `EOFError` where the file ends in it.
    """
    data = file.read(CHUNK_BYTES)
    while data:
        member = _Member(file, data)
        yield file.tell() - len(data), io.BufferedReader(member, CHUNK_BYTES)
        data = member.data if member.inflate.eof else _from_next(file, member.data[1:])
        data = data.lstrip(b"\0") or file.read(CHUNK_BYTES)  # tapes and disks pad with zeros


def _from_next(file: IO[bytes], data: bytes) -> bytes:
    while (start := data.find(MAGIC)) < 0:
        more = file.read(CHUNK_BYTES)
        if not more:
            return b""
        data = data[1 - len(MAGIC) :] + more
    return data[start:]


class _Member(io.RawIOBase):
    """`data` is what was read of the file and not yet inflated; at the end, what follows the member."""

    def __init__(self, file: IO[bytes], data: bytes) -> None:
        self.file, self.data = file, data
        self.inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = b""
        while not content and not self.inflate.eof:
            self.data = self.data or self.file.read(CHUNK_BYTES)
            if not self.data:
                raise EOFError("the file ends within a gzip member")
            content = self.inflate.decompress(self.data, len(buffer))
            self.data = self.inflate.unconsumed_tail or self.inflate.unused_data
        buffer[: len(content)] = content
        return len(content)
