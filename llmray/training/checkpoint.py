"""Checkpoints: a folder a step with the state in one file and a manifest, written last, that vouches for it.

It does not know when one is due.  A checkpoint without its manifest, or of which a single byte is not as it was
written, does not count, so that a crash in the middle of saving or a bad disk costs only that checkpoint.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

import torch

from llmray.job.errors import StorageError
from llmray.store import place

STATE, MANIFEST = "state.pt", "manifest.json"
WARN = logging.getLogger(__name__).warning


@dataclass
class _Summed:
    """A file that knows the size and checksum of what was written to it, and what went wrong with it."""

    file: IO[bytes]
    size: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)
    trouble: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.trouble = error
            raise
        self.size += len(data)
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def folder_of(root: str, step: int) -> str:
    return place.join(root, f"step-{step:08d}")


def save_state(
    folder: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    extra: Any,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint now.  `extra` may hold tensors, numbers, strings, lists and dicts; the manifest tells what is
    in `about`, as JSON."""
    _write(folder, _state(model, optimizer, step, extra), about or {})


def _state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, extra: Any) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "extra": extra}


def _write(folder: str, state: dict[str, Any], about: Mapping[str, Any]) -> None:
    place.remove(folder)  # what was there is not whole, or the run would have gone on from it
    with place.open_file(place.join(folder, STATE), "wb") as file:
        summed = _Summed(file)
        try:
            torch.save(state, summed)  # type: ignore[arg-type]
        except RuntimeError as error:  # torch hides what it was told
            raise (summed.trouble or error) from None
        file.flush()
        if place.is_local(folder):
            os.fsync(file.fileno())
    files = {STATE: {"bytes": summed.size, "sha256": summed.sha256.hexdigest()}}
    place.write_text(place.join(folder, MANIFEST), _sealed({"step": state["step"], **about, "files": files}))


def _sealed(manifest: dict[str, Any]) -> str:
    """A manifest's text, which holds the checksum of the rest of itself."""
    content = {key: value for key, value in manifest.items() if key != "seal"}
    seal = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps(content | {"seal": seal}, indent=1)


def load_state(folder: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Any]:
    """Put a checkpoint's state into model and optimizer; gives its step and what was saved beside them."""
    state = _read(folder)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), state["extra"]


def load_weights(folder: str, model: torch.nn.Module) -> int:
    """Put a checkpoint's weights into a model; gives its step."""
    state = _read(folder)
    model.load_state_dict(state["model"])
    return int(state["step"])


def _read(folder: str) -> Any:
    with place.open_file(place.join(folder, STATE), "rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def manifest_of(folder: str) -> dict[str, Any]:
    """What a checkpoint says of itself.  Raises `ValueError` when that is not to the byte what was written."""
    with place.open_file(place.join(folder, MANIFEST), "rb") as file:
        data = file.read()
    manifest = json.loads(data)
    if not isinstance(manifest, dict) or _sealed(manifest).encode() != data:
        raise ValueError(f"{MANIFEST} is not as it was written")
    return manifest


def damage(folder: str) -> str | None:
    """What is wrong with a checkpoint; None when every byte is as it was written."""
    try:
        manifest = manifest_of(folder)
    except FileNotFoundError:
        return "saving it was cut short"
    except ValueError:
        return f"{MANIFEST} is not as it was written"
    for name, written in manifest["files"].items():
        found = place.sha256(place.join(folder, name))
        if found != written["sha256"]:
            return f"{name} is {'not as it was written' if found else 'missing'}"
    return None


def newest_good(root: str, warn: Callable[[str], None] = WARN) -> str | None:
    """The newest whole checkpoint under a folder; warns of those that it passes over."""
    found, broken = None, []
    for folder in (place.join(root, name) for name in reversed(_names(root))):
        if (harm := _judged(folder, warn)) is None:
            found = folder
            break
        broken.append(f"{folder}: {harm}")
    for text in broken:
        warn(f"{text}; going on from {found or 'the beginning'}")
    return found


def best_good(root: str, warn: Callable[[str], None] = WARN) -> str | None:
    """The whole checkpoint with the lowest `eval_loss`; warns of those that are not whole."""
    whole = []
    for name in _names(root):
        if harm := _judged(place.join(root, name), warn):
            warn(f"{place.join(root, name)}: {harm}; it cannot become the model")
        else:
            whole.append(name)
    best = _best(root, whole)
    return best and place.join(root, best)


def _judged(folder: str, warn: Callable[[str], None]) -> str | None:
    return place.patiently(lambda: damage(folder), f"reading {folder}", warn)


def _names(root: str) -> list[str]:
    return [name for name in place.listdir(root) if name.startswith("step-")]


def _best(root: str, names: list[str]) -> str | None:
    """Of checkpoints that were validated, the one with the lowest `eval_loss`, the newest of equals."""
    losses: dict[str, float] = {}
    for name in names:
        with suppress(FileNotFoundError, ValueError):
            losses[name] = manifest_of(place.join(root, name)).get("eval_loss", math.nan)
    finite = [name for name in losses if math.isfinite(losses[name])]
    return min(reversed(finite), key=losses.__getitem__, default=None)


def prune(root: str, step: int, keep: int, keep_best: bool = False) -> None:
    """Remove all but the newest checkpoints up to `step` and, if told so, the best.

    What is later than the step that was just saved is from before the run went back, and was judged broken then.
    """
    names = _names(root)
    whole = [n for n in names if place.join(root, n) <= folder_of(root, step)]
    whole = [n for n in whole if place.exists(place.join(root, n, MANIFEST))]
    kept = {*whole[-keep:], *([_best(root, whole)] if keep_best else [])}
    for name in names:
        if name not in kept:
            place.remove(place.join(root, name))


class Saver:
    """Saves in a thread of its own, one checkpoint at a time, while training goes on."""

    def __init__(self, root: str, keep: int, *, keep_best: bool = False, warn: Callable[[str], None] = WARN) -> None:
        self.root, self.keep, self.keep_best, self.warn = root, keep, keep_best, warn
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None

    def save(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        step: int,
        extra: Any,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Copy the state to host memory, then write it in the background."""
        self.wait()
        state = _copied(_state(model, optimizer, step, extra))
        self.pending = self.thread.submit(self._save, state, about or {})

    def _save(self, state: dict[str, Any], about: Mapping[str, Any]) -> None:
        folder = folder_of(self.root, state["step"])

        def write() -> None:
            try:
                _write(folder, state, about)
            except BaseException:
                with suppress(OSError, StorageError):  # a full disk needs the room
                    place.remove(folder)
                raise

        place.patiently(write, f"saving {folder}", self.warn)
        place.patiently(
            lambda: prune(self.root, state["step"], self.keep, self.keep_best), f"clearing {self.root}", self.warn
        )

    def wait(self) -> None:
        """Until the last checkpoint is safe; raises what went wrong with it."""
        if self.pending:
            pending, self.pending = self.pending, None
            pending.result()


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value
