"""How large a request may be, so that one request costs a bounded amount of memory and time.

It does not know what a request means.
"""

MAX_TEXT_BODY_BYTES = 1 << 20
"""JSON body of every route but /caption."""
MAX_PICTURE_BYTES = 10 << 20
"""Picture as bytes."""
MAX_PICTURE_BODY_BYTES = MAX_PICTURE_BYTES * 4 // 3 + 4096
"""The same picture in base64, with its JSON around it."""
MAX_PICTURE_PIXELS = 25_000_000
"""Width × height: a small file may unpack to gigabytes."""
MAX_CHARACTERS = 100_000
"""One text field."""
MAX_TEXTS = 64
"""Texts in one request's list."""
MAX_MESSAGES = 1000
"""Messages of one conversation."""
DRAIN_BYTES = 64 << 20
"""Bytes of a body that is too large that are read and thrown away, so that the client hears why."""
