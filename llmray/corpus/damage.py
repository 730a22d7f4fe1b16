"""What is wrong with one record or one file, in words; and what is wrong with the storage instead.

It does not know who reads, nor what becomes of a damaged record.
"""

import gzip
import json
import lzma
import tarfile
import zlib
from typing import Any

from llmray.corpus.record import Bad
from llmray.job.errors import DataError

CUT = "damaged file"
"""The kind of a `Bad` after which the rest of its file, or of a part of it, cannot be read."""
SHOWN_CHARS = 1 << 14
ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError)
"""What decompressors, tars and storage raise while they are read."""


class DamageError(DataError):
    """One record that cannot be read, on its way to the reader that makes a `Bad` of it."""

    def __init__(self, where: str, kind: str, reason: str, record: str = "") -> None:
        super().__init__(where, kind, reason, record)

    def __str__(self) -> str:
        return f"{self.bad.where}: {self.bad.reason}"

    @property
    def bad(self) -> Bad:
        return Bad(*self.args)


def shown(record: Any) -> str:
    """A record as a person would look at it: text as it is, else JSON, without pictures; its first `SHOWN_CHARS`."""
    if isinstance(record, bytes):
        record = record[: 4 * SHOWN_CHARS].decode("utf-8", "backslashreplace")
    if not isinstance(record, str):
        record = json.dumps(record, ensure_ascii=False, default=_placeholder)
    return str(record[:SHOWN_CHARS].encode("utf-8", "backslashreplace").decode())


def _placeholder(value: Any) -> str:
    return f"({len(value):,} bytes)" if isinstance(value, bytes) else str(value)


def cut(path: str, after: str, error: Exception) -> Bad:
    """The last `Bad` of a file, whose reading one of `ERRORS` ends.  Raises `DataError` where it is the storage's."""
    require_content(path, error)
    return Bad(f"{path}, after {after}", CUT, f"damaged or cut short: {error}")


def require_content(path: str, error: Exception) -> None:
    """Raise `DataError` where it was the storage that failed, not what it holds.

    Decompressors and Arrow raise a bare `OSError`; storage's has a number, or is a subclass such as `TimeoutError`.
    """
    if isinstance(error, OSError) and (error.errno is not None or type(error) not in (OSError, gzip.BadGzipFile)):
        raise unreachable(path, error) from None


def unreachable(path: str, error: OSError) -> DataError:
    """The storage does not give a file: which, why, and what to do."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: cannot be read: no such file, folder or bucket; check the name")
    if isinstance(error, PermissionError):
        return DataError(f"{path}: cannot be read: no permission; check its rights, or the storage's credentials")
    return DataError(f"{path}: cannot be read: {error.strerror or error}; check the storage, then try again")


class Member(tarfile.TarInfo):
    """A member of a tar.  A damaged header is an error also in its midst, where `tarfile` sees the tar's end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "Member":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # typeshed leaves it out
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from None
