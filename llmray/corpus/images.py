"""Pictures by name, from a folder or a tar.  It does not decode them."""

import tarfile
from functools import cached_property
from typing import IO

from llmray.job.errors import DataError
from llmray.store import place


class Images:
    """Where the pictures that rows name are kept: a folder, or a `.tar` (also .gz, .bz2, .xz)."""

    def __init__(self, path: str) -> None:
        self.path = path
        if not place.exists(path):
            raise DataError(f"{path}: `images` names a folder or tar that does not exist")

    def read(self, name: str, where: str) -> bytes:
        """A picture's bytes; `where` names the row that asks, for errors."""
        return self._from_tar(name, where) if ".tar" in self.path else self._from_folder(name, where)

    def _from_folder(self, name: str, where: str) -> bytes:
        try:
            with place.open_file(place.join(self.path, name)) as file:
                return bytes(file.read())
        except OSError:
            raise DataError(f"{where}: no picture {name!r} in {self.path}") from None

    def _from_tar(self, name: str, where: str) -> bytes:
        try:
            member: IO[bytes] | None = self._tar.extractfile(name)
        except KeyError:
            example = next((m.name for m in self._tar if m.isfile()), "nothing")
            raise DataError(f"{where}: no picture {name!r} in {self.path}, which holds {example!r}") from None
        if member is None:
            raise DataError(f"{where}: {name!r} in {self.path} is not a file")
        return member.read()

    @cached_property
    def _tar(self) -> tarfile.TarFile:
        try:
            return tarfile.open(place.local_copy(self.path))
        except tarfile.TarError as error:
            raise DataError(f"{self.path}: not a tar that can be read: {error}") from None
