"""Checkpoints: a folder a step with the state in one file and a manifest, written last, that vouches for it.

It does not know when one is due.  A checkpoint without its manifest, or whose file is not what the manifest says,
does not count, so that a crash in the middle of saving costs only that checkpoint.
"""

import json
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

import torch

from llmray.store import place

STATE, MANIFEST = "state.pt", "manifest.json"


@dataclass
class _Summed:
    """A file that knows the size and checksum of what was written to it."""

    file: IO[bytes]
    size: int = 0
    crc: int = 0

    def write(self, data: Any) -> int:
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def folder_of(root: str, step: int) -> str:
    return place.join(root, f"step-{step:08d}")


def save_state(folder: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, extra: Any) -> None:
    """Write a checkpoint now.  `extra` may hold tensors, numbers, strings, lists and dicts."""
    _write(folder, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "extra": extra})


def _write(folder: str, state: dict[str, Any]) -> None:
    with place.open_file(place.join(folder, STATE), "wb") as file:
        summed = _Summed(file)
        torch.save(state, summed)  # type: ignore[arg-type]
    manifest = {"step": state["step"], "bytes": summed.size, "crc32": summed.crc}
    place.write_text(place.join(folder, MANIFEST), json.dumps(manifest))


def load_state(folder: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Any]:
    """Put a checkpoint's state into model and optimizer; gives its step and what was saved beside them."""
    with place.open_file(place.join(folder, STATE), "rb") as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), state["extra"]


def is_good(folder: str) -> bool:
    """Whether a checkpoint is whole."""
    try:
        manifest = json.loads(place.read_text(place.join(folder, MANIFEST)))
        with place.open_file(place.join(folder, STATE), "rb") as file:
            size = crc = 0
            while data := file.read(1 << 22):
                size, crc = size + len(data), zlib.crc32(data, crc)
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and (manifest.get("bytes"), manifest.get("crc32")) == (size, crc)


def newest_good(root: str) -> str | None:
    """The newest whole checkpoint under a folder."""
    folders = (place.join(root, name) for name in reversed(place.listdir(root)) if name.startswith("step-"))
    return next(filter(is_good, folders), None)


def prune(root: str, keep: int) -> None:
    """Remove all but the newest checkpoints, and what crashes left half-written before them."""
    names = [name for name in place.listdir(root) if name.startswith("step-")]
    whole = [name for name in names if place.exists(place.join(root, name, MANIFEST))]
    for name in names:
        if whole and name < whole[-keep:][0]:
            place.remove(place.join(root, name))


class Saver:
    """Saves in a thread of its own, one checkpoint at a time, while training goes on."""

    def __init__(self, root: str, keep: int) -> None:
        self.root, self.keep = root, keep
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, extra: Any) -> None:
        """Copy the state to host memory, then write it in the background."""
        self.wait()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "extra": extra}
        self.pending = self.thread.submit(self._save, folder_of(self.root, step), _copied(state))

    def _save(self, folder: str, state: dict[str, Any]) -> None:
        _write(folder, state)
        prune(self.root, self.keep)

    def wait(self) -> None:
        """Until the last checkpoint is safe; raises what went wrong with it."""
        if self.pending:
            self.pending.result()
            self.pending = None


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value
