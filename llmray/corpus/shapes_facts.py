"""What a caption says, as a set of facts, and whether that is true and complete.

It does not know who wrote the caption; it reads plain English about coloured shapes and refuses everything else.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llmray.corpus.shapes_scene import COLOURS, SHAPES, SIZES, Relation, Scene
from llmray.corpus.shapes_scene import relation as relation_of

_RELATIONS: tuple[tuple[Relation, str], ...] = (
    ("left", r"(?:(?:to|on|at) )?(?:the )?left (?:side )?of"),
    ("right", r"(?:(?:to|on|at) )?(?:the )?right (?:side )?of"),
    ("above", r"above|over|on top of"),
    ("below", r"below|under|underneath|beneath"),
)
_PLACES = re.compile("|".join(rf"(?P<{name}>\b(?:{phrase})\b)" for name, phrase in _RELATIONS))
_SAME = {"big": "large", "little": "small", "tiny": "small", "violet": "purple", "rhombus": "diamond", "disc": "circle"}
_ARTICLES = {"a", "an", "the", "one"}
_FILLERS = {"and", "there", "also", "while", "which", "that", "with", "picture", "image", "shows", "you", "we", "can"}
_FILLERS |= {"see", "lies", "sits", "stands", "colour", "color", "size", "of", "in", "it", ","}
_GROUPS = re.compile("TRT|RTT|T|R")


class Fact(NamedTuple):
    """One thing said of a shape: (circle, colour, red), (circle, size, large) or (circle, left of, square)."""

    shape: str
    about: str
    value: str


def _placed(subject: str, relation: str, other: str) -> Fact:
    """A relation from whichever side it was told: only `left of` and `above` are kept."""
    if relation in ("right", "below"):
        subject, other = other, subject
    return Fact(subject, "left of" if relation in ("left", "right") else "above", other)


def facts(scene: Scene) -> frozenset[Fact]:
    """Everything that is true of a scene; of things that share neither row nor column no relation is told."""
    found = set()
    for thing in scene.things:
        size, colour, shape = thing.kind
        found |= {Fact(shape, "size", size), Fact(shape, "colour", colour)}
        for other in scene.things:
            side = relation_of(thing, other) if other is not thing else None
            if side:
                found.add(_placed(shape, side, other.kind.shape))
    return frozenset(found)


def stated(caption: str) -> frozenset[Fact] | None:
    """The facts that a caption states, or None where it is not plain English about shapes."""
    found: set[Fact] = set()
    for sentence in re.split(r"[.;!?]", caption.lower()):
        said = _sentence(_PLACES.sub(lambda m: f" @{m.lastgroup} ", sentence))
        if said is None:
            return None
        found |= said
    return frozenset(found)


def _sentence(text: str) -> set[Fact] | None:
    """Words to items (T: a shape, R: a relation) and the facts that adjectives state on the way."""
    found: set[Fact] = set()
    items: list[str] = []
    waiting: list[str] = []
    subject = ""
    for word in (_SAME.get(w, w) for w in re.findall(r"@?[\w'-]+|[^\w\s]", text)):
        if word in SHAPES:
            found |= {_quality(word, adjective) for adjective in waiting}
            items, waiting, subject = [*items, word], [], ""
        elif word in SIZES or word in COLOURS:
            found |= {_quality(subject, word)} if subject else set()
            waiting = waiting if subject else [*waiting, word]
        elif word in ("is", "are", "has"):
            subject = items[-1] if items and not items[-1].startswith("@") else ""
        elif word.startswith("@") or word in _ARTICLES:
            items, subject = [*items, *([word] if word.startswith("@") else [])], ""
        elif word not in _FILLERS:
            return None
    claims = None if waiting else _claims(items)
    return None if claims is None else found | claims


def _quality(shape: str, adjective: str) -> Fact:
    return Fact(shape, "size" if adjective in SIZES else "colour", adjective)


def _claims(items: list[str]) -> set[Fact] | None:
    """`A left of B`, or `left of B there is A`; None where a relation has no two sides."""
    found, kinds = set(), "".join("R" if item.startswith("@") else "T" for item in items)
    for group in _GROUPS.finditer(kinds):
        part = items[group.start() : group.end()]
        if group[0] == "TRT":
            found.add(_placed(part[0], part[1][1:], part[2]))
        elif group[0] == "RTT":
            found.add(_placed(part[2], part[0][1:], part[1]))
        elif group[0] == "R":
            return None
    return found


def states_facts(caption: str, scene_captions: Sequence[str]) -> bool:
    """Whether a caption states all that one of a picture's true captions states, and nothing that none of them does."""
    said = stated(caption)
    known = [facts for facts in map(stated, scene_captions) if facts]
    if not said or not known:
        return False
    return any(facts <= said for facts in known) and said <= frozenset().union(*known)


def render(facts: Iterable[Fact]) -> str:
    """Facts for a person to read: `circle: large, red; square: small, blue; circle left of square`."""
    ordered = sorted(facts, key=lambda fact: (fact.shape, fact.about == "colour", fact.value))
    qualities: dict[str, list[str]] = {}
    for fact in ordered:
        if fact.about in ("size", "colour"):
            qualities.setdefault(fact.shape, []).append(fact.value)
    parts = [f"{shape}: {', '.join(values)}" for shape, values in qualities.items()]
    return "; ".join(parts + [" ".join(fact) for fact in ordered if fact.about not in ("size", "colour")])
