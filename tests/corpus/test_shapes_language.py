"""What `builtin:shapes` says in English, German and questions: right grammar, true answers, one right answer each."""

import re

import pytest

from llmray.corpus import shapes
from llmray.corpus.record import Question
from llmray.corpus.shapes import Scene, Thing
from llmray.corpus.shapes_scene import COLOURS, Kind

LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE = Kind("large", "red", "circle"), Kind("small", "blue", "square")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [shapes.scene(0, split, i) for split in ("train", "eval") for i in range(1500)]


def of_two(first: Kind, second: Kind, choices: int, across: bool = True) -> Scene:
    """A scene made by hand: `first` left of (or above) `second`; each number of `choices` is one way of telling it."""
    places = ((0, 0), (1, 0)) if across else ((0, 0), (0, 1))
    things = tuple(
        Thing(k, *p, 25 if k.size == "large" else 11, 0, 0) for k, p in zip((first, second), places, strict=True)
    )
    return Scene("by-hand", things, 0, choices)


def tellings(first: Kind, second: Kind, across: bool = True) -> dict[str, str]:
    scenes = [of_two(first, second, choices, across) for choices in range(12)]
    return {shapes.describe(s): shapes.describe_german(s) for s in scenes}


def test_every_way_of_telling_a_scene_has_its_right_german():
    told = tellings(LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE)
    assert len(told) == 12
    expected = {
        "A large red circle is to the left of a small blue square.": (
            "Ein großer roter Kreis ist links von einem kleinen blauen Quadrat."
        ),
        "There is a small blue square to the right of a large red circle.": (
            "Es gibt ein kleines blaues Quadrat rechts von einem großen roten Kreis."
        ),
        "To the left of a small blue square there is a large red circle.": (
            "Links von einem kleinen blauen Quadrat befindet sich ein großer roter Kreis."
        ),
        "You can see a large red circle to the left of a small blue square.": (
            "Man sieht einen großen roten Kreis links von einem kleinen blauen Quadrat."
        ),
        "The picture shows a large red circle and a small blue square. The circle is to the left of the square.": (
            "Das Bild zeigt einen großen roten Kreis und ein kleines blaues Quadrat. Der Kreis ist links vom Quadrat."
        ),
        "A large red circle and a small blue square are in the picture. The circle lies to the left of the square.": (
            "Ein großer roter Kreis und ein kleines blaues Quadrat sind im Bild. Der Kreis liegt links vom Quadrat."
        ),
    }
    assert expected.items() <= told.items()


def test_german_has_feminine_articles_and_endings_and_places_above_and_below():
    diamond, triangle = Kind("small", "black", "diamond"), Kind("large", "purple", "triangle")
    told = tellings(diamond, triangle, across=False)
    assert told["There is a small black diamond above a large purple triangle."] == (
        "Es gibt eine kleine schwarze Raute über einem großen violetten Dreieck."
    )
    assert told["A large purple triangle is below a small black diamond."] == (
        "Ein großes violettes Dreieck ist unter einer kleinen schwarzen Raute."
    )
    across = tellings(triangle, diamond)
    shown = "The picture shows a large purple triangle and a small black diamond."
    assert across[f"{shown} The triangle is to the left of the diamond."] == (
        "Das Bild zeigt ein großes violettes Dreieck und eine kleine schwarze Raute."
        " Das Dreieck ist links von der Raute."
    )


def test_a_third_thing_is_told_beside_its_anchor():
    third = Thing(Kind("small", "green", "star"), 1, 1, 11, 0, 0)
    two = of_two(LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE, 0)
    told = {}
    for choices in range(12 * 4 * 3):
        scene = Scene("by-hand", (*two.things, third), 1, choices)
        told[shapes.describe(scene).split(". ")[-1]] = shapes.describe_german(scene).split(". ")[-1]
    assert told == {
        "Below the square there is a small green star.": "Unter dem Quadrat befindet sich ein kleiner grüner Stern.",
        "There is also a small green star below the square.": (
            "Es gibt auch einen kleinen grünen Stern unter dem Quadrat."
        ),
        "A small green star lies below the square.": "Ein kleiner grüner Stern liegt unter dem Quadrat.",
        "The square is above a small green star.": "Das Quadrat ist über einem kleinen grünen Stern.",
    }


def test_the_german_is_a_function_of_the_english(scenes):
    german: dict[str, str] = {}
    for scene in scenes:
        english = shapes.describe(scene)
        assert german.setdefault(english, shapes.describe_german(scene)) == shapes.describe_german(scene)
    assert len(set(german.values())) == len(german)


def test_german_nouns_carry_an_article_of_their_gender(scenes):
    gender = {"Kreis": "m", "Stern": "m", "Quadrat": "n", "Dreieck": "n", "Raute": "f"}
    forms = {
        "m": r"(ein \w+er \w+er|einen \w+en \w+en|einem \w+en \w+en|ein|einem|der|dem|vom)",
        "n": r"(ein \w+es \w+es|einem \w+en \w+en|ein|einem|das|dem|vom)",
        "f": r"(eine \w+e \w+e|einer \w+en \w+en|eine|einer|die|der)",
    }
    for scene in scenes:
        text = shapes.describe_german(scene).lower()
        for noun, kind in gender.items():
            found = len(re.findall(rf"\b{noun.lower()}\b", text))
            assert len(re.findall(rf"\b{forms[kind]} {noun.lower()}\b", text)) == found, text


# --- questions --------------------------------------------------------------------------------------------------------


def test_answers_stand_in_the_description_where_they_say(scenes):
    for scene in scenes:
        asked = shapes.questions(scene)
        assert len({q.id for q in asked}) == len(asked)
        for question in asked:
            assert question.answers
            for answer in question.answers:
                start, text = answer["start"], answer["text"]
                assert question.context[start : start + len(text)] == text


def test_questions_agree_with_the_scene(scenes):
    """Each style of question is answered again from the scene itself, not from the text."""
    for scene in scenes:
        by_shape, true = {t.kind.shape: t.kind for t in scene.things}, shapes.facts(scene)
        for question in shapes.questions(scene):
            text = question.answers[0]["text"]
            shape = re.findall(r"(\w+)(?: have)?\?$", question.question)[0]
            if "colour" in question.question:
                assert text == by_shape[shape].colour
            elif question.question.startswith(("How big", "What size")):
                assert text == by_shape[shape].size
            elif question.question.startswith("Where"):
                assert shapes.stated(f"the {shape} {text}") <= true
            elif shape in by_shape:
                place = re.sub(r"^What (is|can you see) |\?$", "", question.question)
                assert shapes.stated(f"the {text} is {place}") <= true
            else:
                colour = next(w for w in question.question.rstrip("?").split() if w in COLOURS)
                assert [k.colour for k in by_shape.values()].count(colour) == 1
                assert by_shape[text].colour == colour


def test_a_question_with_two_right_answers_is_not_asked():
    kinds = (LARGE_RED_CIRCLE, SMALL_BLUE_SQUARE, Kind("small", "red", "star"))
    row = tuple(Thing(kind, column, 0, 11, 0, 0) for column, kind in enumerate(kinds))
    asked = {q.question for choices in range(200) for q in shapes.questions(Scene("row", row, 1, choices << 60))}
    assert "What is to the left of the square?" in asked
    # Circle and square are both to the left of the star; circle and star are both red.
    assert not {"What is to the left of the star?", "Which shape is red?"} & asked


def test_every_style_of_question_is_asked_about_as_often():
    asked = [row.question for row in shapes.records(Question, 0, "eval", 0, 2000)]
    colour = sum("What colour" in q or "Which colour" in q for q in asked)
    size = sum(q.startswith(("How big", "What size")) for q in asked)
    where = sum(q.startswith("Where") for q in asked)
    assert all(0.15 < count / 2000 < 0.25 for count in (colour, size, where))


def test_running_text_holds_the_description_and_tells_facts_again(scenes):
    for scene in scenes:
        text, description = shapes.running_text(scene), shapes.describe(scene)
        assert description in text
        assert len(text) > len(description)
