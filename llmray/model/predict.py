"""The Predictor: requests → answers, the same in validation, evaluation and HTTP.

It does not know who asks.  One bad request never spoils its batch.
"""

import threading
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import pydantic
import torch
from pydantic import TypeAdapter

from llmray.corpus.record import Columns
from llmray.job.errors import LlmrayError, ModelError, RequestError
from llmray.job.schema import EngineName, Model
from llmray.job.task import TaskOptions
from llmray.model import load
from llmray.model.engines import choice
from llmray.model.generate import Stream, stream
from llmray.tasks import make
from llmray.tasks.base import Answer, Request, Task

MOST = 64
"""Requests that go through the model in one pass; more are taken in several."""

ABOUT = ("metrics", "created", "sha256")
INPUTS: dict[str, dict[str, type]] = {
    "causal_lm": {"text": str},
    "masked_lm": {"text": str},
    "span_corruption": {"text": str},
    "classification": {"text": str},
    "qa": {"question": str, "context": str},
    "translation": {"text": str},
    "captioning": {"image": bytes},
    "chat": {"messages": list},
}
"""What a request of each task brings."""


class Predictor:
    """A model that answers a task's requests, one batch at a time."""

    def __init__(
        self, task: Task, model: Any, *, name: str = "model", version: str = "0", engine: str = "torch"
    ) -> None:
        """`model` is what an engine opened; `engine` names it."""
        self.task, self.model, self.name, self.version, self.engine = task, model, name, version, engine
        self.about: dict[str, Any] = {}
        """What the registry knows of it beside name and version."""
        self.lock = threading.Lock()

    @classmethod
    def load(
        cls,
        reference: str | Model,
        task_options: Any = None,
        device: str | None = None,
        registry_root: str | None = None,
        engine: EngineName = "torch",
    ) -> "Predictor":
        """From a folder, hub id or registry reference; options default to those the model was trained with.

        Raises `ModelError` when the folder is no model, was trained for another task, or lacks what `engine` needs.
        """
        device = _device(device)
        asked = reference if isinstance(reference, Model) else load.section(reference)
        folder = load.resolve(asked.from_, registry_root)
        options, found = _options(folder, task_options), asked.model_copy(update={"from_": folder})
        task = make(options, load.processor(found, registry_root))
        model, running = choice.opened(engine, found, task, device)
        name, version = _identity(asked.from_, folder, model.config)
        predictor = cls(task, model, name=name, version=version, engine=running)
        predictor.about = {key: value for key, value in load.note(folder, "version.json").items() if key in ABOUT}
        return predictor

    def predict(self, requests: Sequence[Request]) -> list[Answer | RequestError]:
        """One answer, or its error, for each request, in their order."""
        outcomes: list[Answer | RequestError | None] = [self._complaint(request) for request in requests]
        good = [i for i, complaint in enumerate(outcomes) if complaint is None]
        for start in range(0, len(good), MOST):
            places = good[start : start + MOST]
            for place, outcome in zip(places, self._answers([requests[i] for i in places]), strict=True):
                outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _answers(self, requests: Sequence[Request]) -> list[Answer | RequestError]:
        """Answers of one pass; when it fails, each request is asked alone, to find whose fault it was."""
        try:
            with self.lock, torch.inference_mode():
                return self.task.answer(self.model, requests)
        except LlmrayError:
            raise
        except Exception as error:  # noqa: BLE001 — the per-request guard: reported to the one it concerns
            if len(requests) == 1:
                return [RequestError(f"the model failed on this request: {type(error).__name__}: {error}", 500)]
        return [outcome for request in requests for outcome in self._answers([request])]

    def measure(self, rows: Columns) -> list[dict[str, Any]]:
        """One measurement a held-out record."""
        if not any(len(values) for values in rows.values()):
            return []
        with self.lock, torch.inference_mode():
            return self.task.measure(self.model, rows)

    def stream(self, request: Request) -> Stream:
        """Pieces of generated text as they come, the rest of the answer as the generator's value.

        Raises `RequestError` before the first piece.
        """
        if complaint := self._complaint(request):
            raise complaint
        return stream(self.task, self.model, request, self.lock)

    def _complaint(self, request: Request) -> RequestError | None:
        """What is wrong with a request as such, or not possible with this engine."""
        refusal = getattr(self.model, "refusal", None)
        if refusal and (reason := refusal(request.parameters)):
            return RequestError(reason)
        return _complaint(self.task.name, request)


def _complaint(task_name: str, request: Request) -> RequestError | None:
    """What is wrong with a request's inputs as such, whatever the model."""
    for field, kind in INPUTS[task_name].items():
        value = request.inputs.get(field)
        if not isinstance(value, kind):
            found = "is missing" if value is None else f"is {type(value).__name__}"
            return RequestError(f"inputs.{field}: {found}; {task_name} needs {kind.__name__}")
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            return RequestError(f"inputs.{field}: is not valid Unicode: it holds half a surrogate pair")
    return None


def _device(wanted: str | None) -> str:
    there = torch.cuda.is_available()
    if wanted and wanted.startswith("cuda") and not there:
        raise ModelError(f"device {wanted}: torch finds no GPU here; use cpu")
    return wanted or ("cuda" if there else "cpu")


def _options(folder: str, given: Any) -> Any:
    known = load.card(folder).get("task")
    if given is not None and known is not None and given.name != known["name"]:
        raise ModelError(f"{folder}: was trained for {known['name']}, not {given.name}")
    if known is None:
        if given is None:
            raise ModelError(f"{folder}: does not say which task it was trained for; name it as `task`")
        return given
    chosen = given.model_dump(exclude_unset=True) if given is not None else {}
    try:
        return TypeAdapter(TaskOptions).validate_python(known | chosen)
    except pydantic.ValidationError as error:
        problem = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
        raise ModelError(f"{folder}: its task's options, changed by {chosen}, do not fit together: {problem}") from None


def _identity(reference: str, folder: str, config: Any) -> tuple[str, str]:
    """Name and version: the registry's; else the run's folder and 0; else the hub's name and commit."""
    registered = load.note(folder, "version.json")
    if registered:
        return str(registered["name"]), str(registered["version"])
    path = PurePosixPath(reference)
    name = path.parent.name if path.name == "model" and path.parent.name else path.name
    return name, str(getattr(config, "_commit_hash", None) or "0")[:12]
