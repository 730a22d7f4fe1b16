"""The Predictor: requests → answers, the same in validation, evaluation and HTTP.

It does not know who asks.  One bad request never spoils its batch.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from transformers import PreTrainedModel

from llmray.corpus.record import Columns
from llmray.job.errors import ModelError
from llmray.job.schema import Model, TaskOptions
from llmray.model import load
from llmray.model.generate import stream
from llmray.tasks import make
from llmray.tasks.base import Answer, Request, RequestError, Task


class Predictor:
    """A model that answers a task's requests, one batch at a time."""

    def __init__(
        self, task: Task, model: PreTrainedModel, device: str = "cpu", *, name: str = "model", version: str = "0"
    ) -> None:
        self.task, self.model, self.name, self.version = task, model.to(device).eval(), name, version
        self.lock = threading.Lock()

    @classmethod
    def load(
        cls, reference: str, task_options: Any = None, device: str | None = None, registry_root: str | None = None
    ) -> "Predictor":
        """From a folder, hub id or registry reference; options default to those the model was trained with.

        Raises `ModelError` when the folder is no model, or was trained for another task.
        """
        folder = load.resolve(reference, registry_root)
        options = _options(folder, task_options)
        section = Model.model_validate({"from": folder})
        task = make(options, load.processor(section))
        _require_head(folder, task)
        model = load.build(section, task)
        name, version = _identity(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(task, model, device, name=name, version=version)

    def predict(self, requests: Sequence[Request]) -> list[Answer | RequestError]:
        """One answer, or its error, for each request, in their order."""
        with self.lock, torch.inference_mode():
            return self.task.answer(self.model, requests)

    def measure(self, rows: Columns) -> list[dict[str, Any]]:
        """One measurement a held-out record."""
        with self.lock, torch.inference_mode():
            return self.task.measure(self.model, rows)

    def stream(self, request: Request) -> Iterator[str]:
        """Pieces of generated text as they come.  Raises `RequestError` before the first piece."""
        return stream(self.task, self.model, request)


def _options(folder: str, given: Any) -> Any:
    known = load.card(folder).get("task")
    if given is not None and known is not None and given.name != known["name"]:
        raise ModelError(f"{folder}: was trained for {known['name']}, not {given.name}")
    if known is None:
        if given is None:
            raise ModelError(f"{folder}: does not say which task it was trained for; name it as `task`")
        return given
    chosen = given.model_dump(exclude_unset=True) if given is not None else {}
    return TypeAdapter(TaskOptions).validate_python(known | chosen)


def _require_head(folder: str, task: Task) -> None:
    """Refuse to answer with a head that was never trained."""
    config = Path(folder, "config.json")
    found = json.loads(config.read_text()).get("architectures") or [] if config.exists() else []
    heads = {"qa": "QuestionAnswering", "masked_lm": "MaskedLM"}
    head = heads.get(task.name)
    if found and head and not any(head in name for name in found):
        raise ModelError(f"{folder}: holds {', '.join(found)}, which cannot answer {task.name}; fine-tune it first")


def _identity(folder: str) -> tuple[str, str]:
    """Name and version: the registry's, else the run's folder and 0."""
    path = Path(folder)
    version = path / "version.json"
    if version.exists():
        known = json.loads(version.read_text())
        return known["name"], str(known["version"])
    return (path.parent.name if path.name == "model" else path.name), "0"
