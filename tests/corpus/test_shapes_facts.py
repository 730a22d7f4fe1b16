"""What a caption of a scene says, judged by its facts and not by its words."""

import random

import pytest

from llmray.corpus import shapes
from llmray.corpus.shapes import Fact, Scene, Thing
from llmray.corpus.shapes_scene import Kind

LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE = Kind("large", "red", "circle"), Kind("small", "blue", "square")
CAPTION = "a large red circle to the left of a small blue square"


def of_two(first: Kind, second: Kind, across: bool = True) -> Scene:
    """A scene made by hand: `first` left of (or above) `second`."""
    places = ((0, 0), (1, 0)) if across else ((0, 0), (0, 1))
    things = tuple(
        Thing(k, *p, 25 if k.size == "large" else 11, 0, 0) for k, p in zip((first, second), places, strict=True)
    )
    return Scene("by-hand", things, 0, 0)


def test_a_caption_tells_the_first_two_things_in_reading_order():
    assert shapes.caption(of_two(LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE)) == CAPTION
    below = of_two(SMALL_BLUE_SQUARE, LARGE_RED_CIRCLE, across=False)
    assert shapes.caption(below) == "a small blue square above a large red circle"


def test_facts_are_sizes_colours_and_relations_told_one_way_round():
    facts = shapes.stated(CAPTION)
    assert facts == {
        Fact("circle", "size", "large"),
        Fact("circle", "colour", "red"),
        Fact("square", "size", "small"),
        Fact("square", "colour", "blue"),
        Fact("circle", "left of", "square"),
    }
    assert facts == shapes.facts(of_two(LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE))
    assert shapes.render(facts) == "circle: large, red; square: small, blue; circle left of square"


@pytest.mark.parametrize(
    "caption",
    [
        CAPTION,
        "A small blue square is to the right of a large red circle.",
        "To the left of the little blue square there is a big red circle",
        "A circle is left of a square. The circle is large and red, and the square is small and blue.",
        "The picture shows a large red circle and a small blue square. The circle is on the left of the square.",
    ],
)
def test_a_caption_in_other_words_states_the_facts(caption: str):
    assert shapes.states_facts(caption, [CAPTION])


@pytest.mark.parametrize(
    "caption",
    [
        "a large red circle to the right of a small blue square",
        "a small blue square to the left of a large red circle",
        "a large red circle above a small blue square",
        "a large green circle to the left of a small blue square",
        "a small red circle to the left of a small blue square",
        "a large red star to the left of a small blue square",
        "a large blue circle to the left of a small red square",
        "a large red circle and a small blue square",
        "a large circle to the left of a blue square",
        "a large red circle",
        "a large red circle to the left of a small blue square. the square is green",
        "a large red circle to the left of a small blue square above a large red star",
        "a large red circle to the left of a small blue",
        "a large red circle to the left of",
        "a large red elephant to the left of a small blue square",
        "not a large red circle to the left of a small blue square",
        "large large large",
        "",
    ],
)
def test_a_wrong_incomplete_or_garbled_caption_does_not(caption: str):
    assert not shapes.states_facts(caption, [CAPTION])


def test_any_of_several_captions_may_be_stated_but_nothing_beyond_them():
    captions = [CAPTION, "a large green star below a small blue square"]
    assert shapes.states_facts("a small blue square above a large green star", captions)
    assert shapes.states_facts(f"{CAPTION}. the star is below the square", captions)
    assert not shapes.states_facts(f"{CAPTION}. the star is below the circle", captions)
    assert not shapes.states_facts(CAPTION, ["a dog on a beach"])


def test_every_text_states_true_facts_only():
    for scene in [shapes.scene(0, split, i) for split in ("train", "eval") for i in range(1000)]:
        true, caption = shapes.facts(scene), shapes.caption(scene)
        told, captioned = shapes.stated(shapes.describe(scene)), shapes.stated(caption)
        assert captioned is not None
        assert told is not None
        assert captioned <= told <= true
        assert len(told) == 3 * len(scene.things) - 1, "two qualities a thing and a relation for each but the first"
        assert shapes.states_facts(caption, [caption])


def test_a_caption_of_another_scene_is_as_good_as_never_right():
    captions = [shapes.caption(shapes.scene(0, "train", i)) for i in range(1000)]
    shuffled = random.Random(0).sample(captions, len(captions))
    right = [a for a, b in zip(captions, shuffled, strict=True) if shapes.states_facts(a, [b])]
    assert len(right) <= 5
