"""The kinds of record that a corpus holds, and the columns in which batches of them travel.

It does not know where records come from or what a task makes of them.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

Columns: TypeAlias = dict[str, list[Any]]
"""A batch of records or features: column name → one value a row, all of one length."""


@dataclass(frozen=True, slots=True)
class Document:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence and its translation."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a context. `answers` hold `{"text", "start"}`, start in characters of it; each is right."""

    id: str
    context: str
    question: str
    answers: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture (PNG, JPEG …) and the captions that people gave it; training uses each caption once."""

    image: bytes
    captions: list[str]


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its class."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What people and an assistant said in turn: `{"role", "content"}` each, roles as in OpenAI's messages."""

    messages: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Bad:
    """What cannot be read: where it was found ("FILE, line N"), a short name to count it by, why in words, and the
    record as it stands there, as far as it can be shown."""

    where: str
    kind: str
    reason: str
    record: str = ""


Record: TypeAlias = Document | Pair | Question | Picture | Example | Conversation
