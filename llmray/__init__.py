"""llmray: the life of a language model on Ray, one function a verb.

Nothing heavy is imported until a verb is used.
"""

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmray.showcase import demo
    from llmray.verbs import evaluate, export, prepare, serve, submit, train, tune, ui

__all__ = ["demo", "evaluate", "export", "prepare", "serve", "submit", "train", "tune", "ui"]
__version__ = "0.1.0"

gc.set_threshold(50_000)  # at Python's 700, a fifth of the time of importing torch and transformers finds no garbage


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("llmray.showcase" if name == "demo" else "llmray.verbs"), name)
    raise AttributeError(f"module 'llmray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
