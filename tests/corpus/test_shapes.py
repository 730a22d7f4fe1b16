"""`builtin:shapes`: the splits never meet, the bytes never change, the pictures show the scenes."""

import hashlib
import io
from itertools import combinations
from typing import Any

import pytest
from PIL import Image

from llmray.corpus import shapes
from llmray.corpus.record import Conversation, Document, Example, Pair, Picture, Question
from llmray.corpus.shapes import Scene, Thing
from llmray.corpus.shapes_scene import Kind, split_of
from llmray.job.errors import DataError

ROWS = 4000
LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE = Kind("large", "red", "circle"), Kind("small", "blue", "square")


def of(split: str, rows: int = ROWS, seed: int = 0) -> list[Scene]:
    return [shapes.scene(seed, split, i) for i in range(rows)]


@pytest.fixture(scope="module")
def train() -> list[Scene]:
    return of("train")


@pytest.fixture(scope="module")
def held_out() -> list[Scene]:
    return of("eval")


def pairs(scenes: list[Scene]) -> set[frozenset[Kind]]:
    return {frozenset((a.kind, b.kind)) for s in scenes for a, b in combinations(s.things, 2)}


# --- scenes and splits ------------------------------------------------------------------------------------------------


def test_no_combination_of_the_evaluation_split_is_in_training_whatever_the_seed(train, held_out):
    trained, evaluated = pairs(train) | pairs(of("train", seed=9)), pairs(held_out) | pairs(of("eval", seed=3))
    assert not trained & evaluated
    # 60 kinds, of which 1440 pairs differ in shape: nearly all of them have been seen, on one side or the other.
    assert len(trained) + len(evaluated) > 1400
    assert 0.2 < len(evaluated) / 1440 < 0.3


def test_every_pair_of_kinds_belongs_to_the_split_that_its_hash_names(train, held_out):
    for split, scenes in (("train", train), ("eval", held_out)):
        assert {split_of(*pair) for pair in pairs(scenes)} == {split}
    assert split_of(LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE) == split_of(SMALL_BLUE_SQUARE, LARGE_RED_CIRCLE)


def test_a_scene_depends_on_seed_split_and_index_alone():
    assert shapes.scene(1, "train", 5) == of("train", 6, seed=1)[5]
    assert len({shapes.scene(*which).choices for which in ((0, "train", 5), (1, "train", 5), (0, "eval", 5))}) == 3


def test_things_differ_in_shape_stand_in_reading_order_and_the_first_two_in_line(train, held_out):
    for scene in train + held_out:
        assert len(scene.things) in (2, 3)
        assert len({t.kind.shape for t in scene.things}) == len(scene.things)
        places = [(t.row, t.column) for t in scene.things]
        assert places == sorted(set(places))
        assert places[0][0] == places[1][0] or places[0][1] == places[1][1]
    for scenes in (train, held_out):
        assert 0.15 < sum(len(s.things) == 3 for s in scenes) / ROWS < 0.3


def test_the_splits_have_the_same_makeup_in_colours_shapes_and_arrangements(train, held_out):
    for count in (lambda s: s.things[0].kind.colour, lambda s: s.things[0].kind.shape, shapes.label):
        for value in {count(s) for s in train}:
            shares = [sum(count(s) == value for s in scenes) / ROWS for scenes in (train, held_out)]
            assert abs(shares[0] - shares[1]) < 0.06
            assert min(shares) > 0.1


# --- the same everywhere ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "digest"),
    [
        (Document, "6907af4c726d9b93"),
        (Pair, "c2913b011213ba24"),
        (Question, "e623374e3a4c9888"),
        (Picture, "780064b56d46d0e1"),
        (Example, "d76328d7bdbf1b98"),
        (Conversation, "b61ac0590be897fd"),
    ],
)
def test_the_first_hundred_rows_are_these_bytes_on_every_machine(record: Any, digest: str):
    hashed = hashlib.sha256()
    for row in shapes.records(record, 0, "train", 0, 100):
        hashed.update(repr(row).encode())
    assert hashed.hexdigest()[:16] == digest


def test_any_part_of_the_rows_can_be_drawn_alone():
    whole = list(shapes.records(Question, 4, "eval", 0, 50))
    parts = [list(shapes.records(Question, 4, "eval", a, b)) for a, b in ((0, 20), (20, 50))]
    assert parts[0] + parts[1] == whole
    assert len({row.id for row in whole}) == 50


# --- pictures ---------------------------------------------------------------------------------------------------------


def pixels(scene: Scene, size: int = 96) -> Image.Image:
    image = Image.open(io.BytesIO(shapes.draw(scene, size)))
    image.verify()
    return Image.open(io.BytesIO(shapes.draw(scene, size))).convert("RGB")


def test_a_picture_shows_each_thing_inside_its_cell_in_its_colour_and_size(train):
    for scene in train[:300]:
        image = pixels(scene)
        assert image.size == (96, 96)
        drawn = {image.getpixel((x, y)) for x in range(96) for y in range(96)} - {(255, 255, 255)}
        assert len(drawn) == len({t.kind.colour for t in scene.things})
        for thing in scene.things:
            x, y = 32 * thing.column, 32 * thing.row
            cell = image.crop((x, y, x + 32, y + 32)).convert("L").point(lambda level: 255 * (level < 255))
            left, top, right, bottom = cell.getbbox()
            assert thing.pixels - 4 <= max(right - left, bottom - top) <= thing.pixels
            assert (thing.pixels < 13) == (thing.kind.size == "small")


def test_shapes_fill_their_part_of_the_square_around_them():
    shares = {"circle": 0.785, "square": 0.81, "triangle": 0.475, "diamond": 0.5, "star": 0.35}
    for shape, share in shares.items():
        scene = Scene("", (Thing(Kind("large", "black", shape), 0, 0, 25, 0, 0),), 0, 0)
        cell = pixels(scene).crop((0, 0, 32, 32)).convert("L")
        assert cell.histogram()[25] / 625 == pytest.approx(share, abs=0.06), shape


def test_a_picture_is_drawn_in_any_multiple_of_six_pixels():
    scene = shapes.scene(0, "train", 0)
    assert pixels(scene, 288).size == (288, 288)
    assert pixels(scene, 480).size == (480, 480), "more than one stored block"
    with pytest.raises(ValueError, match=r"multiple of 6.*100"):
        shapes.draw(scene, 100)


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_uri_says_how_many_rows_of_which_split_from_which_seed():
    assert shapes.parse_uri("builtin:shapes?rows=20&split=eval&seed=7") == (20, "eval", 7)
    assert shapes.parse_uri("builtin:shapes") == (1000, "train", 0)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("builtin:shapes?row=5", r"unknown key 'row'; allowed: rows, split, seed"),
        ("builtin:shapes?rows=five", r"rows is 'five'; allowed: a whole number .*1 or more"),
        ("builtin:shapes?rows=0", r"rows is '0'"),
        ("builtin:shapes?rows", r"rows is ''"),
        ("builtin:shapes?rows=" + "9" * 5000, r"at most 18 digits"),
        ("builtin:shapes?seed=-1", r"seed is '-1'; allowed: a whole number .*0 or more"),
        ("builtin:shapes?split=test", r"split is 'test'; allowed: train, eval"),
        ("builtin:shapes?rows=1&rows=2", r"rows is given twice"),
        ("builtin:colours?rows=1", r"no built-in corpus 'builtin:colours'; allowed: builtin:shapes"),
    ],
)
def test_a_wrong_uri_is_named_with_what_is_allowed(uri: str, says: str):
    with pytest.raises(DataError, match=says) as error:
        shapes.parse_uri(uri)
    assert str(error.value).startswith(uri)


def test_an_unknown_split_or_record_is_named():
    with pytest.raises(DataError, match=r"no split 'test'; allowed: train, eval"):
        shapes.scene(0, "test", 0)
    with pytest.raises(
        DataError, match=r"no records of type dict; allowed: Document, Pair, Question, Picture, Example, Conversation"
    ):
        list(shapes.records(dict, 0, "train", 0, 1))
