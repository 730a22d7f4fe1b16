"""A scene as a PNG picture, byte for byte the same on every machine.

It does not know how scenes come about.  Everything is integer arithmetic and nothing is compressed, because drawing
libraries and compressors differ from build to build.
"""

import struct
import zlib
from functools import cache

from llmray.corpus.shapes_scene import COLOURS, Scene, Thing

CELL = 32
_BACKGROUND = (255, 255, 255)
_RGB = {
    "red": (220, 30, 35),
    "green": (30, 160, 60),
    "blue": (40, 80, 225),
    "yellow": (245, 205, 20),
    "purple": (150, 50, 190),
    "black": (25, 25, 25),
}
_CORNERS = {
    "square": ((-900, -900), (900, -900), (900, 900), (-900, 900)),
    "triangle": ((0, -1000), (1000, 900), (-1000, 900)),
    "diamond": ((0, -1000), (1000, 0), (0, 1000), (-1000, 0)),
    "star": (
        *((0, -1000), (247, -340), (951, -309), (400, 130), (588, 809)),
        *((0, 420), (-588, 809), (-400, 130), (-951, -309), (-247, -340)),
    ),
}
"""Outlines in thousandths of half the width, x to the right and y down."""


def _inside(shape: str, width: int, column: int, row: int) -> bool:
    """Whether a pixel's centre is inside the shape: a circle, or a polygon by the even-odd rule."""
    x, y = 2 * column + 1 - width, 2 * row + 1 - width
    if shape == "circle":
        return x * x + y * y <= width * width
    x, y = 1000 * x, 1000 * y
    corners = [(cx * width, cy * width) for cx, cy in _CORNERS[shape]]
    crossings = 0
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (ay > y) != (by > y):
            side = (bx - ax) * (y - ay) - (x - ax) * (by - ay)
            crossings += (side > 0) == (by > ay)
    return crossings % 2 == 1


@cache
def _runs(shape: str, width: int) -> tuple[tuple[int, int, int], ...]:
    """The filled pixels as (row, first column, length)."""
    runs = []
    for row in range(width):
        filled = "".join("#" if _inside(shape, width, column, row) else " " for column in range(width))
        start = 0
        for part in filled.split(" "):
            if part:
                runs.append((row, start, len(part)))
            start += len(part) + 1
    return tuple(runs)


def draw(scene: Scene, size: int = 3 * CELL) -> bytes:
    """The scene as a square PNG of `size` pixels (a multiple of 6), with a palette of 4 bits a pixel."""
    if size % 6 or size <= 0:
        raise ValueError(f"a scene is drawn in a multiple of 6 pixels; found {size}")
    # Hexadecimal digits, one a pixel; each row starts with the byte of PNG's filter 0.
    stride = size + 2
    canvas = bytearray(b"0" * (stride * size))
    for thing in scene.things:
        _paint(canvas, thing, size)
    return _png(size, bytes.fromhex(canvas.decode()))


def _paint(canvas: bytearray, thing: Thing, size: int) -> None:
    cell, stride = size // 3, size + 2
    width = thing.pixels * cell // CELL
    left = thing.column * cell + (cell - width) // 2 + thing.dx * cell // CELL
    top = thing.row * cell + (cell - width) // 2 + thing.dy * cell // CELL
    ink = b"%x" % (COLOURS.index(thing.kind.colour) + 1)
    for row, start, length in _runs(thing.kind.shape, width):
        at = (top + row) * stride + 2 + left + start
        canvas[at : at + length] = ink * length


def _png(size: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", size, size, 4, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _PALETTE + _chunk(b"IDAT", _stored(rows)) + _END


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of stored blocks."""
    blocks = [data[i : i + 65535] for i in range(0, len(data), 65535)]
    last = len(blocks) - 1
    parts = [struct.pack("<BHH", i == last, len(b), len(b) ^ 0xFFFF) + b for i, b in enumerate(blocks)]
    return b"\x78\x01" + b"".join(parts) + struct.pack(">I", zlib.adler32(data))


_PALETTE = _chunk(b"PLTE", bytes(part for rgb in (_BACKGROUND, *(_RGB[name] for name in COLOURS)) for part in rgb))
_END = _chunk(b"IEND", b"")
