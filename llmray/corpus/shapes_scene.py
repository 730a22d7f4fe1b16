"""A scene of `builtin:shapes`: a few coloured shapes on a grid of cells, drawn from a seed.

It does not know how a scene looks as a picture or how it is put into words.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256, sha512
from itertools import combinations, product
from typing import Literal, NamedTuple, TypeVar, get_args

from llmray.job.errors import DataError

Split = Literal["train", "eval"]
Relation = Literal["left", "right", "above", "below"]
T = TypeVar("T")

SIZES = ("small", "large")
COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
SHAPES = ("circle", "square", "triangle", "star", "diamond")
OPPOSITE: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}
PIXELS = {"small": (10, 11, 12), "large": (24, 25, 26)}
"""Widths in a cell of 32 pixels; far apart, so that a size is seen without comparing."""
JITTER = (-2, -1, 0, 1, 2)
HELD_OUT_ONE_IN = 4


class Kind(NamedTuple):
    """What can be said of a thing wherever it is."""

    size: str
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape in its cell of the 3 × 3 grid; width `pixels` and shift `dx`, `dy` are for a cell of 32 pixels."""

    kind: Kind
    column: int
    row: int
    pixels: int
    dx: int
    dy: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Two or three things of different shapes, in reading order; the first two share a row or a column.

    `anchor` is the place of the thing beside which the third one stands; `choices` seeds the choice of words.
    """

    id: str
    things: tuple[Thing, ...]
    anchor: int
    choices: int


class Claim(NamedTuple):
    """`subject` is `relation` of `other`."""

    subject: Thing
    relation: Relation
    other: Thing


class Dice:
    """Draws from one large number, so that a draw is the same on every machine and Python version."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def roll(self, sides: int) -> int:
        self.value, rolled = divmod(self.value, sides)
        return rolled

    def pick(self, items: tuple[T, ...] | list[T]) -> T:
        return items[self.roll(len(items))]


KINDS = tuple(Kind(*parts) for parts in product(SIZES, COLOURS, SHAPES))
_CELLS = tuple((column, row) for row in range(3) for column in range(3))


def split_of(one: Kind, other: Kind) -> Split:
    """The only split in which two kinds may meet; it depends on nothing else, the seed included."""
    pair = " & ".join(sorted((" ".join(one), " ".join(other))))
    return "eval" if sha256(pair.encode()).digest()[0] % HELD_OUT_ONE_IN == 0 else "train"


@cache
def _partners(kind: Kind, split: Split) -> tuple[Kind, ...]:
    return tuple(k for k in KINDS if k.shape != kind.shape and split_of(kind, k) == split)


@cache
def _thirds(one: Kind, other: Kind, split: Split) -> tuple[Kind, ...]:
    return tuple(k for k in _partners(one, split) if k in _partners(other, split))


def _aligned(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return (one[0] == other[0]) != (one[1] == other[1])


_PAIRS = tuple(pair for pair in combinations(_CELLS, 2) if _aligned(*pair))
_TRIPLES = tuple(
    (cells, 1 if _aligned(cells[1], cells[2]) else 0)
    for cells in combinations(_CELLS, 3)
    if _aligned(*cells[:2]) and (_aligned(cells[1], cells[2]) or _aligned(cells[0], cells[2]))
)


@cache
def _layouts(relation_is_row: bool, count: int) -> tuple[tuple[tuple[tuple[int, int], ...], int], ...]:
    every = _TRIPLES if count == 3 else tuple((pair, 0) for pair in _PAIRS)
    return tuple((cells, anchor) for cells, anchor in every if (cells[0][1] == cells[1][1]) == relation_is_row)


def scene(seed: int, split: Split, index: int) -> Scene:
    """Scene number `index` of a split; it depends on the three arguments alone."""
    if split not in get_args(Split):
        raise DataError(f"builtin:shapes has no split {split!r}; allowed: {', '.join(get_args(Split))}")
    dice = Dice(int.from_bytes(sha512(f"shapes {seed} {split} {index}".encode()).digest(), "big"))
    kinds = [dice.pick(KINDS)]
    kinds.append(dice.pick(_partners(kinds[0], split)))
    thirds = _thirds(kinds[0], kinds[1], split)
    if dice.roll(4) == 0 and thirds:
        kinds.append(dice.pick(thirds))
    cells, anchor = dice.pick(_layouts(dice.roll(2) == 0, len(kinds)))
    things = tuple(_place(kind, cell, dice) for kind, cell in zip(kinds, cells, strict=True))
    return Scene(f"shapes-{seed}-{split}-{index}", things, anchor, dice.value)


def _place(kind: Kind, cell: tuple[int, int], dice: Dice) -> Thing:
    return Thing(kind, *cell, dice.pick(PIXELS[kind.size]), dice.pick(JITTER), dice.pick(JITTER))


def relation(one: Thing, other: Thing) -> Relation | None:
    """How `one` stands to `other`, where a row or a column makes that plain."""
    if one.row == other.row:
        return "left" if one.column < other.column else "right"
    if one.column == other.column:
        return "above" if one.row < other.row else "below"
    return None


def label(scene: Scene) -> str:
    """The arrangement: all in one `row`, all in one `column`, or round a `corner`."""
    if len({thing.row for thing in scene.things}) == 1:
        return "row"
    return "column" if len({thing.column for thing in scene.things}) == 1 else "corner"
