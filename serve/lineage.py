"""Sixteen digits that name exactly which model answers: its weights, and the job and corpus that it learned from.

It does not know how the model was made: training left that beside the weights, in `lineage.json`.
"""

import hashlib
from pathlib import Path

from llmray.model.load import resolve
from llmray.store import place

DIGITS = 16


def lineage(model: str, version: str) -> str:
    """`sha256sum *.safetensors lineage.json | sha256sum` in the model's folder; of a hub's model, its name and commit.

    Without `lineage.json` the weights stand alone.
    """
    folder = Path(resolve(model))
    if not folder.is_dir():
        return _digits(f"{model} {version}\n")
    files = [*sorted(folder.glob("*.safetensors")), *folder.glob("lineage.json")]
    return _digits("".join(f"{place.sha256(str(file))}  {file.name}\n" for file in files))


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
