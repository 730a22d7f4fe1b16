"""Judges that bytes are a picture which can be opened and is not too large.  It does not know what is asked of it."""

import base64
import binascii
import io
import warnings

from PIL import Image, UnidentifiedImageError

from llmray.job.errors import RequestError
from serve.limits import MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Read by Pillow itself; formats that start other programs or follow links (EPS, …) are not."""


def unpacked(text: str) -> bytes:
    """Bytes of a base64 text or `data:` URL.  Nothing is ever fetched."""
    packed = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(packed.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("inputs is not valid base64; send the picture's bytes in base64, or as the body") from None


def picture_of(data: bytes, where: str) -> bytes:
    """The same bytes, when they are a picture that opens to its last row."""
    if not data:
        raise RequestError(f"{where} is empty; send the bytes of a picture", 400)
    if len(data) > MAX_PICTURE_BYTES:
        raise RequestError(f"{where} has {len(data):,} bytes; a picture may have {MAX_PICTURE_BYTES:,}", 413)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PICTURE_PIXELS:
                too_large = f"{where} has {width} × {height} pixels; at most {MAX_PICTURE_PIXELS:,} are read"
                raise RequestError(too_large, 413)
            picture.load()
    except Image.DecompressionBombError as error:
        raise RequestError(f"{where} has too many pixels: {error}", 413) from None
    except UnidentifiedImageError:
        raise RequestError(f"{where} is not a picture; allowed: {', '.join(FORMATS)}", 415) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RequestError(f"{where} is a broken picture: {error}", 415) from None
    return data
