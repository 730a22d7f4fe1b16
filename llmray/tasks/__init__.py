"""What is asked of a model: one file a task, one table of them."""

from typing import Any

from llmray.tasks.base import Processor, Task
from llmray.tasks.captioning import Captioning
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.tasks.chat import Chat
from llmray.tasks.classification import TextClassification
from llmray.tasks.masked_lm import MaskedLanguageModel
from llmray.tasks.qa import ExtractiveQA
from llmray.tasks.span_corruption import SpanCorruption
from llmray.tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        CausalLanguageModel,
        MaskedLanguageModel,
        SpanCorruption,
        TextClassification,
        ExtractiveQA,
        Translation,
        Captioning,
        Chat,
    )
}


def make(options: Any, processor: Processor, seed: int = 0, **loss: Any) -> Task:
    """The task that a job's `task` section names; `loss` as `Task` takes it."""
    return TASKS[options.name](options, processor, seed, **loss)
