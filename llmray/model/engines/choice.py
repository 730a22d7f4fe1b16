"""Which engine runs a model here, and the one that does it, opened.

It does not know how any of them runs.  An engine's packages are imported once it is chosen.
"""

import importlib.util
import logging
from importlib import import_module
from pathlib import Path
from typing import Any

from llmray.job.errors import ModelError
from llmray.job.results import ExportResult
from llmray.job.schema import EngineName, Model
from llmray.model import forms
from llmray.model.engines import torch as plain
from llmray.model.load import Loading
from llmray.tasks.base import Task

WARN = logging.getLogger(__name__).warning
PACKAGES = {"ctranslate2": ("ctranslate2",), "onnx": ("onnxruntime", "onnx", "onnxscript")}
"""What an engine needs, beyond what llmray always does."""
SUITS = {
    "ctranslate2": ("causal_lm", "chat", "translation"),
    "onnx": ("qa", "classification", "masked_lm", "captioning"),
}
"""Tasks that each engine can do."""


def opened(wanted: EngineName, section: Model, task: Task, device: str) -> tuple[Any, str]:
    """What stands in a model's place, and its name; `section` names its folder.  Raises `ModelError`.

    A form that cannot be used is passed over, with a warning, by `auto` alone.
    """
    if wanted == "torch" or (wanted == "auto" and device != "cpu"):
        return plain.opened(section, task, device), "torch"
    names = [form for form in forms.beside(section.from_) if wanted == "auto" or form.name.partition("-")[0] == wanted]
    if wanted != "auto":
        return _named(wanted, section, names, task)
    for note in _fastest(names):
        try:
            return _form(section, note, task), _name(note)
        except ModelError as error:
            WARN("%s", f"{error}; another engine answers meanwhile")
    return plain.opened(section, task, device), "torch"


def _named(wanted: str, section: Model, names: list[Path], task: Task) -> tuple[Any, str]:
    if not names:
        folder = section.from_
        raise ModelError(
            f"engine: {wanted}: {folder} has no such form; make one: llmray export {folder} --to {wanted} JOB.yaml"
        )
    note = max(map(forms.read, names), key=lambda note: note.speedup)
    return _form(section, note, task), _name(note)


def _fastest(names: list[Path]) -> list[ExportResult]:
    """Forms that were faster than torch where they were made, the fastest first."""
    found = []
    for name in names:
        try:
            found.append(forms.read(name))
        except ModelError as error:
            WARN("%s", f"{error}; another engine answers meanwhile")
    return sorted((note for note in found if note.speedup > 1), key=lambda note: -note.speedup)


def _form(section: Model, note: ExportResult, task: Task) -> Any:
    form = Path(note.folder)
    if note.task != task.name:
        raise ModelError(f"{form}: was checked for {note.task}, not for {task.name}")
    require(note.engine, f"{form}")
    forms.require_sound(form, note)
    engine = module(note.engine)
    if note.needs_vnni and not engine.has_vnni():
        raise ModelError(f"{form}: this processor would overflow in its int8 (no VNNI); {forms.again(form)}")
    with Loading(str(form)):
        return engine.opened(section, form, task, int8=note.precision == "int8")


def module(engine: str) -> Any:
    return import_module(f"llmray.model.engines.{engine}")


def require(engine: str, what: str) -> None:
    """Raise `ModelError` where a package that the engine needs is not installed."""
    if missing := [name for name in PACKAGES[engine] if importlib.util.find_spec(name) is None]:
        raise ModelError(f"{what}: needs {', '.join(missing)}: pip install 'llmray[engines]'")


def _name(note: ExportResult) -> str:
    return f"{note.engine} {note.precision}"
