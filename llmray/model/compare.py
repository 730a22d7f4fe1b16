"""How good and how fast a model and a form of it are, on the same rows.  It does not know how the form was made."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmray.corpus.record import Columns
from llmray.model.predict import Predictor
from llmray.tasks.base import Request, Task
from llmray.tasks.chat import last_answer

PROMPT_WORDS, NEW_TOKENS, PROMPTS, ROUNDS = 16, 32, 8, 3
"""What a model that goes on with texts is timed with; how good it is, is measured on texts that exist."""


@dataclass(frozen=True)
class Score:
    value: float
    """The task's headline metric."""
    rows: int
    rows_per_s: float


def scores(form: Predictor, model: Predictor, rows: Sequence[Columns]) -> tuple[Score, Score]:
    """The form's and the model's."""
    task, sides = model.task, (form, model)
    (one, spent_s), (other, other_spent_s) = _in_turn([side.measure for side in sides], rows)
    asked = len(one)
    if prompts := _prompts(task, rows[0]):
        (_, spent_s), (_, other_spent_s) = _in_turn([side.predict for side in sides], [prompts] * ROUNDS)
        asked = len(prompts) * ROUNDS
    return _score(task, one, asked / spent_s), _score(task, other, asked / other_spent_s)


def _score(task: Task, measurements: list[dict[str, Any]], rows_per_s: float) -> Score:
    return Score(float(task.summarise(measurements)[task.headline]), len(measurements), rows_per_s)


def _in_turn(sides: Sequence[Callable[[Any], list[Any]]], batches: Sequence[Any]) -> list[tuple[list[Any], float]]:
    """What each side says to all batches, and its seconds: in turn, so that what else the machine does slows all.

    The first batch is asked once before, since first passes are slow.
    """
    found: list[list[Any]] = [[] for _ in sides]
    spent_s = [0.0 for _ in sides]
    for side in sides:
        side(batches[0])
    for batch in batches:
        for i, side in enumerate(sides):
            began = time.perf_counter()
            found[i] += side(batch)
            spent_s[i] += time.perf_counter() - began
    return list(zip(found, spent_s, strict=True))


def _prompts(task: Task, rows: Columns) -> list[Request]:
    """Beginnings of evaluation rows, for tasks whose speed is that of going on with them."""
    asked: list[dict[str, Any]] = []
    if task.name == "causal_lm":
        asked = [{"text": " ".join(text.split()[:PROMPT_WORDS])} for text in rows["text"][:PROMPTS]]
    elif task.name == "chat":
        asked = [{"messages": list(last[0])} for last in map(last_answer, rows["messages"][:PROMPTS]) if last]
    return [Request(inputs, {"max_new_tokens": NEW_TOKENS}) for inputs in asked]
