"""Pictures by name, from a folder or a tar.  It does not decode them beyond their headers."""

import difflib
import io
import tarfile
import zlib
from functools import cached_property

from PIL import Image, UnidentifiedImageError

from llmray.job.errors import DataError
from llmray.store import place

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def require_picture(data: bytes, where: str, name: str) -> None:
    """Raise `DataError` unless the bytes begin as a picture does."""
    try:
        Image.open(io.BytesIO(data)).close()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        said = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise DataError(f"{where}: {name!r} is not a picture that can be read (PNG, JPEG, GIF, WebP …){said}") from None


class Images:
    """Where the pictures that rows name are kept: a folder, or a tar, compressed or not."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.packed = path.lower().endswith(TARS)
        if not place.exists(path):
            raise DataError(f"{path}: `images` names a folder or tar that does not exist")

    def read(self, name: str, where: str) -> bytes:
        """A picture's bytes; `where` names the row that asks, for errors."""
        return self._from_tar(name, where) if self.packed else self._from_folder(name, where)

    def _from_folder(self, name: str, where: str) -> bytes:
        if ".." in name.split("/"):
            raise DataError(f"{where}: picture {name!r} would lie outside {self.path}; name it from that folder down")
        try:
            with place.open_file(place.join(self.path, name)) as file:
                return bytes(file.read())
        except OSError:
            raise DataError(
                f"{where}: no picture {name!r} in the folder {self.path}; see `images` and `columns`"
            ) from None

    def _from_tar(self, name: str, where: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            near = difflib.get_close_matches(name, self._members, 1, 0.3) or list(self._members)[:1] or ["nothing"]
            raise DataError(f"{where}: no picture {name!r} in {self.path}, which holds {near[0]!r}; see `columns`")
        try:
            file = self._tar.extractfile(member)
            assert file is not None  # only files are among the members
            return file.read()
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(f"{self.path}: damaged or cut short at {name!r}: {error}") from None

    @cached_property
    def _members(self) -> dict[str, tarfile.TarInfo]:
        try:
            return {member.name.removeprefix("./"): member for member in self._tar if member.isfile()}
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(f"{self.path}: damaged or cut short: {error}") from None

    @cached_property
    def _tar(self) -> tarfile.TarFile:
        try:
            return tarfile.open(place.local_copy(self.path))
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(f"{self.path}: not a tar that can be read: {str(error).splitlines()[0]}") from None
