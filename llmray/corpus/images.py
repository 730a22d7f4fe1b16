"""Pictures by name, from a folder or a tar.  It does not decode them beyond their headers."""

import difflib
import errno
import io
import tarfile
from dataclasses import dataclass
from functools import cached_property

from PIL import Image, UnidentifiedImageError

from llmray.corpus.damage import CUT, ERRORS, DamageError, Member, require_content, unreachable
from llmray.job.errors import DataError
from llmray.store import place

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")

NOT_FOUND = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def require_picture(data: bytes, where: str, name: str) -> None:
    """Raise `DamageError` unless the bytes begin as a picture does."""
    try:
        Image.open(io.BytesIO(data)).close()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        said = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        reason = f"{name!r} is not a picture that can be read (PNG, JPEG, GIF, WebP …){said}"
        raise DamageError(where, "not a picture", reason) from None


def from_folder(folder: str, name: str, where: str) -> bytes:
    """A picture's bytes; `where` names the row that asks.  Raises `DamageError` where the folder lacks it."""
    if ".." in name.split("/"):
        reason = f"picture {name!r} would lie outside {folder}; name it from that folder down"
        raise DamageError(where, "no picture", reason)
    try:
        with place.open_file(place.join(folder, name)) as file:
            return bytes(file.read())
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, NOT_FOUND) and error.errno != errno.ENAMETOOLONG:
            raise unreachable(place.join(folder, name), error) from None
        reason = f"no picture {name!r} in the folder {folder}; see `images` and `columns`"
        raise DamageError(where, "no picture", reason) from None


@dataclass(frozen=True)
class Beside:
    """A picture in the folder of the file that names it, not read yet."""

    folder: str
    name: str


class Images:
    """Where the pictures that rows name are kept: a folder, or a tar, compressed or not."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.packed = path.lower().endswith(TARS)
        self.damage = ""
        if not place.exists(path):
            raise DataError(f"{path}: `images` names a folder or tar that does not exist")

    def read(self, name: str, where: str) -> bytes:
        """A picture's bytes; `where` names the row that asks.  Raises `DamageError` when they cannot be had."""
        return self._from_tar(name, where) if self.packed else from_folder(self.path, name, where)

    def _from_tar(self, name: str, where: str) -> bytes:
        member = self._members.get(name)
        if member is None and self.damage:
            raise DamageError(where, CUT, f"no picture {name!r} in what can be read of {self.path}: {self.damage}")
        if member is None:
            near = difflib.get_close_matches(name, self._members, 1, 0.3) or list(self._members)[:1] or ["nothing"]
            reason = f"no picture {name!r} in {self.path}, which holds {near[0]!r}; see `columns`"
            raise DamageError(where, "no picture", reason)
        try:
            file = self._tar.extractfile(member)
            assert file is not None  # only files are among the members
            return file.read()
        except ERRORS as error:
            raise DamageError(where, CUT, f"{self.path}: damaged or cut short at {name!r}: {error}") from None

    @cached_property
    def _members(self) -> dict[str, tarfile.TarInfo]:
        """Files by name, as far as the tar can be read."""
        found = {}
        try:
            for member in self._tar:
                if member.isfile():
                    found[member.name.removeprefix("./")] = member
        except ERRORS as error:
            self.damage = f"damaged or cut short: {error}"
        return found

    @cached_property
    def _tar(self) -> tarfile.TarFile:
        try:
            return tarfile.open(place.local_copy(self.path), tarinfo=Member)
        except ERRORS as error:
            require_content(self.path, error)
            raise DataError(f"{self.path}: not a tar that can be read: {str(error).splitlines()[0]}") from None
