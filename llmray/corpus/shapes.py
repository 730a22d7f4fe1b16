"""`builtin:shapes`: any number of scenes of coloured shapes, as pictures, descriptions, translations and questions.

It does not know what is learned from them.  Row i of a split depends on seed, split and i alone, so parts of the corpus
can be drawn anywhere, in any order; two kinds of thing that meet in the evaluation split never meet in training.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast, get_args
from urllib.parse import parse_qsl

from llmray.corpus.record import Conversation, Document, Example, Pair, Picture, Question, Record
from llmray.corpus.shapes_facts import Fact, facts, render, stated, states_facts
from llmray.corpus.shapes_language import caption, describe, describe_german
from llmray.corpus.shapes_picture import draw
from llmray.corpus.shapes_questions import dialogue, one_question, questions, running_text
from llmray.corpus.shapes_scene import Scene, Split, Thing, label, scene
from llmray.job.errors import DataError

__all__ = [
    "Address",
    "Fact",
    "Scene",
    "Split",
    "Thing",
    "caption",
    "describe",
    "describe_german",
    "draw",
    "facts",
    "label",
    "parse_uri",
    "questions",
    "records",
    "render",
    "running_text",
    "scene",
    "stated",
    "states_facts",
]

NAME = "builtin:shapes"


class Address(NamedTuple):
    """What a URI `builtin:shapes?rows=N&split=train|eval&seed=N` asks for."""

    rows: int = 1000
    split: Split = "train"
    seed: int = 0


def parse_uri(path: str) -> Address:
    """Judge a `builtin:shapes` URI.  Raises `DataError` naming what is wrong and what is allowed."""
    corpus, _, query = path.partition("?")
    if corpus != NAME:
        raise DataError(f"{path}: there is no built-in corpus {corpus!r}; allowed: {NAME}")
    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in Address._fields:
            raise DataError(f"{path}: unknown key {key!r}; allowed: {', '.join(Address._fields)}")
        if key in values:
            raise DataError(f"{path}: {key} is given twice; give it once")
        values[key] = value
    split = values.get("split", "train")
    if split not in get_args(Split):
        raise DataError(f"{path}: split is {split!r}; allowed: {', '.join(get_args(Split))}")
    rows, seed = _number(path, "rows", values.get("rows", "1000"), 1), _number(path, "seed", values.get("seed", "0"), 0)
    return Address(rows, cast(Split, split), seed)


def _number(path: str, key: str, text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18) or int(text) < least:
        raise DataError(f"{path}: {key} is {text!r}; allowed: a whole number of at most 18 digits, {least} or more")
    return int(text)


def records(record_type: type[Record], seed: int, split: Split, start: int, stop: int) -> Iterator[Record]:
    """Rows `start` to `stop` of a split, one record a scene."""
    make = _MAKERS.get(record_type)
    if make is None:
        allowed = ", ".join(kind.__name__ for kind in _MAKERS)
        raise DataError(f"{NAME} has no records of type {record_type.__name__}; allowed: {allowed}")
    for index in range(start, stop):
        yield make(scene(seed, split, index))


def _document(scene: Scene) -> Document:
    return Document(running_text(scene))


def _pair(scene: Scene) -> Pair:
    return Pair(describe(scene), describe_german(scene))


def _picture(scene: Scene) -> Picture:
    return Picture(draw(scene), [caption(scene)])


def _example(scene: Scene) -> Example:
    return Example(describe(scene), label(scene))


def _conversation(scene: Scene) -> Conversation:
    return Conversation(dialogue(scene))


_MAKERS: dict[type[Record], Callable[[Scene], Record]] = {
    Document: _document,
    Pair: _pair,
    Question: one_question,
    Picture: _picture,
    Example: _example,
    Conversation: _conversation,
}
