"""A model → a faster form of it beside its weights, kept only when it answers as well.

It does not know where evaluation rows come from.  Model and form answer the same rows through the same `Predictor`;
what was found is the form's `export.json`, written last.
"""

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from llmray.corpus.record import Columns, Record
from llmray.job.errors import DataError, JobError, ThresholdError
from llmray.job.results import ExportResult
from llmray.model import forms, load, registry
from llmray.model.compare import Score, scores
from llmray.model.engines import choice
from llmray.model.engines import torch as plain
from llmray.model.predict import Predictor
from llmray.store import place
from llmray.store.journal import Progress
from llmray.tasks.base import Task

EngineKind = Literal["ctranslate2", "onnx"]
LOWER_IS_BETTER = ("perplexity",)


def export(
    reference: str,
    to: EngineKind,
    read: Callable[[type[Record]], Sequence[Columns]],
    tolerance_percent: float,
    progress: Progress,
    *,
    int8: bool = False,
    options: Any = None,
    registry_root: str | None = None,
) -> ExportResult:
    """Convert, compare over what `read` gives (batches of evaluation records), and keep the form.

    Raises `JobError` where the engine cannot do it, `ThresholdError` when the form loses more than the tolerance; then
    nothing is left of it.
    """
    label = f"export {reference} to {to}{' int8' if int8 else ''}"
    progress.start(label)
    home = _home(reference, registry_root)
    parent = Predictor.load(reference, options, "cpu", registry_root)
    _require_able(to, parent)
    task, folder, engine = parent.task, load.resolve(reference, registry_root), choice.module(to)
    section = load.section(folder)
    rows = read(task.record)
    if not rows:
        raise DataError("data.eval: holds no rows to compare on")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=home if place.is_local(home) else None) as scratch:
        form = Path(scratch, forms.folder_name(to, "int8" if int8 else "float32"))
        form.mkdir()
        with load.Loading(f"{folder} as {to}"):
            engine.convert(plain.opened(section, task, "cpu"), task, form, int8=int8)
        after, before = scores(Predictor(task, engine.opened(section, form, task, int8=int8)), parent, rows)
        _require_as_good(label, task, before, after, tolerance_percent)
        made = _told(form, to, int8, task, reference, Path(folder), before, after)
        target = _keep(form, home, made)
    progress.done(
        label, f"{task.headline} {before.value:.3f}, then {after.value:.3f}; {made.speedup:.2f} times as fast"
    )
    return made.model_copy(update={"folder": target})


def _home(reference: str, registry_root: str | None) -> str:
    """The model's folder, where its forms are kept."""
    if reference.startswith(registry.PREFIX):
        return registry.referred(reference, registry_root).folder
    folder = load.resolve(reference, registry_root) if place.is_local(reference) else reference
    if not place.exists(folder):
        raise JobError(
            f"export: {reference} is no folder, and a form lies in its model's; download it first: hf download"
            f" {reference} --local-dir FOLDER"
        )
    return folder


def _require_able(to: str, model: Predictor) -> None:
    choice.require(to, f"export to {to}")
    if model.task.name not in choice.SUITS[to]:
        raise JobError(f"export: {to} does {', '.join(choice.SUITS[to])}; this model does {model.task.name}")
    kind, kinds = model.model.config.model_type, getattr(choice.module(to), "LOADERS", None)
    if kinds and kind not in kinds:
        raise JobError(f"export: a {kind} model cannot be converted to {to}; these can: {', '.join(sorted(kinds))}")


def _require_as_good(label: str, task: Task, before: Score, after: Score, tolerance_percent: float) -> None:
    lost = (after.value - before.value) * (1 if task.headline in LOWER_IS_BETTER else -1)
    if not lost <= abs(before.value) * tolerance_percent / 100:
        raise ThresholdError(
            f"{label}: {task.headline} is {after.value:.4g}, the model's {before.value:.4g}; evaluate.tolerance_percent"
            f" allows to lose {tolerance_percent:g} %. Nothing was kept; "
            + ("try it without --int8" if "int8" in label else "serve the model by torch")
        )


def _told(
    form: Path, to: EngineKind, int8: bool, task: Task, reference: str, folder: Path, before: Score, after: Score
) -> ExportResult:
    files = sorted(path for path in form.iterdir() if path.is_file())
    package = {"ctranslate2": "ctranslate2", "onnx": "onnxruntime"}[to]
    return ExportResult(
        folder=form.name,
        engine=to,
        precision="int8" if int8 else "float32",
        task=task.name,
        parent=reference,
        parent_sha256=forms.weights_hash(folder),
        metric=task.headline,
        before=before.value,
        after=after.value,
        rows=after.rows,
        parent_rows_per_s=before.rows_per_s,
        rows_per_s=after.rows_per_s,
        parent_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        bytes=sum(path.stat().st_size for path in files),
        files={path.name: str(place.sha256(str(path))) for path in files},
        needs_vnni=int8 and to == "onnx" and choice.module(to).has_vnni(),
        made_with={name: version(name) for name in (package, "torch", "transformers")},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _keep(form: Path, home: str, made: ExportResult) -> str:
    """Put a form beside its model, in the place of an older one."""
    target, note = place.join(home, form.name), made.model_dump_json(indent=2)
    if place.is_local(home):
        (form / forms.NOTE).write_text(note)
        place.remove(target)
        form.rename(target.removeprefix("file://"))
        return target
    place.remove(target)
    place.upload(form, target)
    place.write_text(place.join(target, forms.NOTE), note)
    return target
