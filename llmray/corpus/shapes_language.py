"""A scene in English and in German: one plan of sentences, rendered twice.

It does not know how scenes come about.  The plan holds every choice, and each English template has one German one, so
the German text is a function of the English text.
"""

from functools import cache
from string import Formatter
from typing import NamedTuple

from llmray.corpus.shapes_scene import Claim, Dice, Kind, Relation, Scene, Thing, relation

# {X} is the subject of the sentence's claim, {Y} the other thing.  `full`: a large red circle; `the`: the circle;
# `at …`: to the left of ….  German forms name their case.  Size and colour stand right before their noun in every
# sentence, so that a small encoder finds whose they are.
_OPENINGS = (
    ("{X:full} is {Y:at full}.", "{X:full nom} ist {Y:at full}."),
    ("There is {X:full} {Y:at full}.", "Es gibt {X:full acc} {Y:at full}."),
    ("{Y:at full} there is {X:full}.", "{Y:at full} befindet sich {X:full nom}."),
    ("You can see {X:full} {Y:at full}.", "Man sieht {X:full acc} {Y:at full}."),
    (
        "The picture shows {X:full} and {Y:full}. {X:the} is {Y:at the}.",
        "Das Bild zeigt {X:full acc} und {Y:full acc}. {X:the nom} ist {Y:at the}.",
    ),
    (
        "{X:full} and {Y:full} are in the picture. {X:the} lies {Y:at the}.",
        "{X:full nom} und {Y:full nom} sind im Bild. {X:the nom} liegt {Y:at the}.",
    ),
)
_ADDITIONS = (
    ("{Y:at the} there is {X:full}.", "{Y:at the} befindet sich {X:full nom}."),
    ("There is also {X:full} {Y:at the}.", "Es gibt auch {X:full acc} {Y:at the}."),
    ("{X:full} lies {Y:at the}.", "{X:full nom} liegt {Y:at the}."),
)
_ADDITION_FROM_ANCHOR = ("{X:the} is {Y:at full}.", "{X:the nom} ist {Y:at full}.")

PLACE: dict[Relation, str] = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
_PLACE_DE: dict[Relation, str] = {"left": "links von", "right": "rechts von", "above": "über", "below": "unter"}
_NOUN = {"circle": "Kreis", "square": "Quadrat", "triangle": "Dreieck", "star": "Stern", "diamond": "Raute"}
_GENDER = {"circle": "m", "square": "n", "triangle": "n", "star": "m", "diamond": "f"}
_ADJECTIVE = {
    **{"small": "klein", "large": "groß", "red": "rot", "green": "grün", "blue": "blau"},
    **{"yellow": "gelb", "purple": "violett", "black": "schwarz"},
}
_A = {"nom": {"m": "ein", "n": "ein", "f": "eine"}, "acc": {"m": "einen", "n": "ein", "f": "eine"}}
_A["dat"] = {"m": "einem", "n": "einem", "f": "einer"}
_THE = {"nom": {"m": "der", "n": "das", "f": "die"}, "dat": {"m": "dem", "n": "dem", "f": "der"}}
_ENDING = {"nom": {"m": "er", "n": "es", "f": "e"}, "acc": {"m": "en", "n": "es", "f": "e"}}
_ENDING["dat"] = {"m": "en", "n": "en", "f": "en"}


class Sentence(NamedTuple):
    """A claim and the pair of templates that puts it into words."""

    claim: Claim
    english: str
    german: str


class Mention(NamedTuple):
    """A stretch of the English text."""

    start: int
    end: int

    def distance(self, other: "Mention") -> int:
        return max(self.start - other.end, other.start - self.end, 0)


class Telling(NamedTuple):
    """The English text; where it says what (`size`, `colour`, `shape`, `name`, `place`) of a shape; where each claim's
    place is told."""

    text: str
    claims: list[Claim]
    mentions: dict[tuple[str, str], list[Mention]]
    places: list[Mention]


def story(scene: Scene) -> list[Sentence]:
    """Every choice of words for a scene."""
    dice = Dice(scene.choices)
    first, second = scene.things[:2] if dice.roll(2) else scene.things[1::-1]
    sentences = [Sentence(_claim(first, second), *dice.pick(_OPENINGS))]
    if len(scene.things) == 3:
        third, anchor = scene.things[2], scene.things[scene.anchor]
        if dice.roll(4):
            sentences.append(Sentence(_claim(third, anchor), *dice.pick(_ADDITIONS)))
        else:
            sentences.append(Sentence(_claim(anchor, third), *_ADDITION_FROM_ANCHOR))
    return sentences


def _claim(subject: Thing, other: Thing) -> Claim:
    found = relation(subject, other)
    assert found is not None, "things of one claim share a row or a column"
    return Claim(subject, found, other)


@cache
def _pieces(template: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    return tuple((text, role or "", tuple((form or "").split())) for text, role, form, _ in Formatter().parse(template))


def _capitals(text: str) -> str:
    return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in text.split(". "))


# --- English --------------------------------------------------------------------------------------------------------


class _English:
    """Writes text and remembers where it said what."""

    def __init__(self) -> None:
        self.text = ""
        self.mentions: dict[tuple[str, str], list[Mention]] = {}
        self.places: list[Mention] = []

    def mark(self, what: str, shape: str, start: int) -> Mention:
        mention = Mention(start, len(self.text))
        self.mentions.setdefault((what, shape), []).append(mention)
        return mention

    def say(self, what: str, shape: str, word: str) -> None:
        start = len(self.text)
        self.text += word
        self.mark(what, shape, start)

    def name(self, kind: Kind, form: str) -> None:
        self.text += "the " if form == "the" else "a "
        start = len(self.text)
        if form == "full":
            self.say("size", kind.shape, kind.size)
            self.text += " "
            self.say("colour", kind.shape, kind.colour)
            self.text += " "
        self.say("shape", kind.shape, kind.shape)
        self.mark("name", kind.shape, start)

    def write(self, template: str, claim: Claim) -> None:
        for text, role, form in _pieces(template):
            self.text += text
            kind = (claim.subject if role == "X" else claim.other).kind
            if form[:1] == ("at",):
                start = len(self.text)
                self.text += PLACE[claim.relation] + " "
                self.name(kind, form[1])
                self.places.append(self.mark("place", claim.subject.kind.shape, start))
            elif role:
                self.name(kind, form[0])


def tell(scene: Scene) -> Telling:
    """The English description with the places of what it says."""
    writer, sentences = _English(), story(scene)
    for number, sentence in enumerate(sentences):
        writer.text += " " if number else ""
        writer.write(sentence.english, sentence.claim)
    return Telling(_capitals(writer.text), [s.claim for s in sentences], writer.mentions, writer.places)


def describe(scene: Scene) -> str:
    """The scene in one to three English sentences."""
    return tell(scene).text


def name(thing: Thing) -> str:
    return " ".join(thing.kind)


def caption(scene: Scene) -> str:
    """The first two things in reading order and how the first stands to the second: one right caption a picture."""
    first, second = scene.things[:2]
    return f"a {name(first)} {PLACE[_claim(first, second).relation]} a {name(second)}"


# --- German ---------------------------------------------------------------------------------------------------------


@cache
def _german_name(size: str, colour: str, shape: str, form: str, case: str) -> str:
    gender = _GENDER[shape]
    article = (_THE if form == "the" else _A)[case][gender]
    if form != "full":
        return f"{article} {_NOUN[shape]}"
    ending = _ENDING[case][gender]
    return f"{article} {_ADJECTIVE[size]}{ending} {_ADJECTIVE[colour]}{ending} {_NOUN[shape]}"


def _german(template: str, claim: Claim) -> str:
    out = []
    for text, role, form in _pieces(template):
        out.append(text)
        if not role:
            continue
        kind = (claim.subject if role == "X" else claim.other).kind
        if form[0] == "at":
            place = f"{_PLACE_DE[claim.relation]} {_german_name(*kind, form[1], 'dat')}"
            out.append(place.replace("von dem ", "vom "))
        else:
            out.append(_german_name(*kind, form[0], form[-1]))
    return "".join(out)


def describe_german(scene: Scene) -> str:
    """The translation of `describe(scene)`."""
    return _capitals(" ".join(_german(sentence.german, sentence.claim) for sentence in story(scene)))
