"""The ready examples of each tab.  It does not know which models answer them."""

from dataclasses import dataclass, field

from llmray.corpus.shapes import Scene, describe, questions, scene


def sample_scene(index: int) -> Scene:
    """A scene whose combinations no model trained on `builtin:shapes` has seen."""
    return scene(0, "eval", index)


def _questions() -> list[tuple[str, str]]:
    asked = [questions(sample_scene(index))[number] for index, number in ((4, 7), (0, 10), (2, 7))]
    return [(q.question, q.context) for q in asked]


def _texts() -> list[str]:
    return [describe(sample_scene(index)) for index in (2, 7, 0)]


@dataclass(frozen=True)
class Samples:
    """What can be tried with one click; the defaults suit models trained on `builtin:shapes`."""

    questions: list[tuple[str, str]] = field(default_factory=_questions)
    """Question and context."""
    texts: list[str] = field(default_factory=_texts)
    """English texts to translate."""
    scenes: tuple[int, ...] = (2, 3, 8, 9)
    """Numbers of the scenes to caption."""
    prompts: tuple[str, ...] = ("There is a large", "The picture shows", "What colour is the star?")
    """Beginnings to write on from."""
