"""Questions about a scene with their answers' places in its description, and running text that repeats its facts.

It does not know how a description is worded, only where it says what.
"""

from typing import NamedTuple

from llmray.corpus.record import Question
from llmray.corpus.shapes_language import PLACE, Mention, Telling, name, tell
from llmray.corpus.shapes_scene import OPPOSITE, Claim, Dice, Scene, Thing


class Style(NamedTuple):
    """A kind of question: {x} is what it is about, {answer} what stands in the description."""

    wordings: tuple[str, str]
    statement: str


_COLOUR = Style(("What colour is the {x}?", "Which colour does the {x} have?"), "The colour of the {x} is {answer}.")
_SIZE = Style(("How big is the {x}?", "What size is the {x}?"), "The {x} is {answer}.")
_SHAPE = Style(("Which shape is {x}?", "What shape is the {x} one?"), "The {x} shape is a {answer}.")
_WHERE = Style(("Where is the {x}?", "Where can you see the {x}?"), "The {x} is {answer}.")
_WHAT = Style(("What is {x}?", "What can you see {x}?"), "The {answer} is {x}.")
_STYLES = (_COLOUR, _SIZE, _WHERE, _WHAT)


class Ask(NamedTuple):
    """A question that the description answers in one way; the first of its `answers` is the plainest."""

    style: Style
    about: str
    answers: list[Mention]


def _asks_of_thing(scene: Scene, thing: Thing, telling: Telling) -> list[Ask]:
    _, colour, shape = thing.kind
    colours, said = telling.mentions["colour", shape], telling.mentions
    asks = [Ask(_COLOUR, shape, colours), Ask(_SIZE, shape, said["size", shape])]
    if sum(t.kind.colour == colour for t in scene.things) == 1:
        near = sorted(said["shape", shape], key=lambda m: abs(m.start - colours[0].start))
        asks.append(Ask(_SHAPE, colour, near))
    places = said.get(("place", shape), [])
    if len(places) == 1:
        asks.append(Ask(_WHERE, shape, places))
    return asks


def _asks_of_claims(telling: Telling) -> list[Ask]:
    """Which thing stands in a relation to another, where the description leaves no second one."""
    asks = []
    told = [(side, number) for number, claim in enumerate(telling.claims) for side in _sides(claim)]
    for side, number in told:
        if any(c.relation == side.relation and _rivals(c, side) for c, n in told if n != number):
            continue
        named = sorted(telling.mentions["name", side.subject.kind.shape], key=telling.places[number].distance)
        for reference in (side.other.kind.shape, name(side.other)):
            asks.append(Ask(_WHAT, f"{PLACE[side.relation]} the {reference}", named))
    return asks


def _sides(claim: Claim) -> tuple[Claim, Claim]:
    return claim, Claim(claim.other, OPPOSITE[claim.relation], claim.subject)


def _rivals(claim: Claim, asked: Claim) -> bool:
    """Whether the claim names a second answer: beside the thing asked about, or beyond the first answer."""
    return claim.other is asked.other or claim.other is asked.subject


def asks(scene: Scene, telling: Telling) -> list[Ask]:
    """Every question that the description answers in one way only."""
    of_things = [ask for thing in scene.things for ask in _asks_of_thing(scene, thing, telling)]
    return of_things + _asks_of_claims(telling)


def _question(scene: Scene, telling: Telling, ask: Ask, wording: str, number: int) -> Question:
    answers = [{"text": telling.text[m.start : m.end], "start": m.start} for m in ask.answers]
    return Question(f"{scene.id}-{number}", telling.text, wording.format(x=ask.about), answers)


def questions(scene: Scene) -> list[Question]:
    """Every question that the description of a scene answers, each in one wording."""
    telling, dice = tell(scene), Dice(scene.choices >> 64)
    found = asks(scene, telling)
    return [_question(scene, telling, ask, dice.pick(ask.style.wordings), i) for i, ask in enumerate(found)]


def one_question(scene: Scene) -> Question:
    """A question about a scene, each style of question about as often as the others."""
    telling, dice = tell(scene), Dice(scene.choices >> 64)
    found = asks(scene, telling)
    style = dice.pick([style for style in _STYLES if any(ask.style is style for ask in found)])
    number, ask = dice.pick([(i, ask) for i, ask in enumerate(found) if ask.style is style])
    return _question(scene, telling, ask, dice.pick(style.wordings), number)


def running_text(scene: Scene) -> str:
    """The description with some of its facts told again, as sentences or as questions with their answers.

    A word hidden in one place can so be read in another, which is what makes pretraining on it worth something.
    """
    telling, dice = tell(scene), Dice(scene.choices >> 128)
    found = asks(scene, telling)
    again = [_again(dice.pick(found), telling, dice) for _ in range(2 + dice.roll(3))]
    text = [*again, telling.text] if dice.roll(2) else [telling.text, *again]
    return " ".join(text)


def dialogue(scene: Scene) -> list[dict[str, str]]:
    """The description told to an assistant, with one to three questions in turn, no one twice, and its answers."""
    telling, dice = tell(scene), Dice(scene.choices >> 192)
    left, found = asks(scene, telling), list[Ask]()
    for _ in range(min(1 + dice.roll(3), len(left))):
        found.append(left.pop(dice.roll(len(left))))
    asked = [dice.pick(ask.style.wordings).format(x=ask.about) for ask in found]
    answers = [telling.text[ask.answers[0].start : ask.answers[0].end] for ask in found]
    asked[0] = f"{telling.text} {asked[0]}"
    return [
        {"role": role, "content": text}
        for question, answer in zip(asked, answers, strict=True)
        for role, text in (("user", question), ("assistant", f"{answer[0].upper()}{answer[1:]}."))
    ]


def _again(ask: Ask, telling: Telling, dice: Dice) -> str:
    answer = telling.text[ask.answers[0].start : ask.answers[0].end]
    if dice.roll(3) == 0:
        return ask.style.statement.format(x=ask.about, answer=answer[0].lower() + answer[1:])
    return f"{dice.pick(ask.style.wordings).format(x=ask.about)} {answer[0].upper()}{answer[1:]}."
