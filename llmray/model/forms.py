"""Faster forms of a model, which lie beside its weights: which there are, and whether one is still what was checked.

It does not know how a form is made or run.  A form is a folder in the model's; its `export.json`, written last, is what
`export` measured.
"""

import hashlib
from pathlib import Path

from llmray.job.errors import ModelError
from llmray.job.results import ExportResult
from llmray.model import registry
from llmray.store import place

NOTE = "export.json"


def folder_name(engine: str, precision: str) -> str:
    return engine if precision == "float32" else f"{engine}-{precision}"


def beside(folder: str) -> list[Path]:
    """Folders of a model's forms, in order of name."""
    return sorted(note.parent for note in Path(folder).glob(f"*/{NOTE}"))


def fingerprint(folder: str) -> str:
    """A hash that is another once there are other forms beside a model, wherever it is kept."""
    names = [folder_name(engine, precision) for engine in ("ctranslate2", "onnx") for precision in ("float32", "int8")]
    found = [place.sha256(place.join(folder, name, NOTE)) for name in names]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def read(form: Path) -> ExportResult:
    """Raises `ModelError` when its note cannot be read."""
    try:
        return ExportResult.model_validate_json((form / NOTE).read_text()).model_copy(update={"folder": str(form)})
    except (OSError, ValueError) as error:
        raise ModelError(f"{form / NOTE}: cannot be read: {str(error).splitlines()[0]}; {again(form)}") from None


def require_sound(form: Path, note: ExportResult) -> None:
    """Raise `ModelError` for a form that is not to the byte as it was checked, or was made of other weights."""
    for name, expected in note.files.items():
        if place.sha256(str(form / name)) != expected:
            raise ModelError(f"{form / name}: is missing or not as it was written; {again(form)}")
    if weights_hash(form.parent) != note.parent_sha256:
        raise ModelError(f"{form}: was made of other weights than {form.parent} holds now; {again(form)}")


def weights_hash(folder: Path) -> str:
    return registry.sha256(sorted(folder.glob("*.safetensors")))


def again(form: Path) -> str:
    engine, _, precision = form.name.partition("-")
    return f"make it again: llmray export {form.parent} --to {engine}{' --int8' if precision else ''} JOB.yaml"
