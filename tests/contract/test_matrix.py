"""Every task with every family: trained a little, saved, and read back by plain `transformers` to the same numbers."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmray.corpus import shapes
from llmray.job.load import load
from llmray.model.predict import Predictor
from llmray.model.presets import FAMILIES_OF
from llmray.store.journal import Progress
from llmray.tasks import TASKS
from llmray.training.checkpoint import folder_of, load_weights
from llmray.training.run import train

pytestmark = pytest.mark.usefixtures("ray_cluster")

PAIRS = [(task, family) for task, families in FAMILIES_OF.items() for family in families]
SHORT = {
    "causal_lm": {"seq_len": 32}, "masked_lm": {"seq_len": 32}, "span_corruption": {"seq_len": 32},
    "classification": {"max_length": 64}, "qa": {"max_length": 96, "stride": 16}, "chat": {"max_length": 96},
}  # fmt: skip


def test_every_task_has_a_family() -> None:
    assert FAMILIES_OF.keys() == TASKS.keys()


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_trained_saved_and_read_by_plain_transformers(name: str, family: str, tmp_path: Path) -> None:
    result = train(
        load(
            {
                "task": {"name": name} | SHORT.get(name, {}),
                "model": {"from": f"new:{family}-tiny"},
                "data": {
                    "train": "builtin:shapes?rows=40",
                    "eval": "builtin:shapes?rows=8&split=eval",
                    "tokenizer": {"vocab_size": 400, "sample_rows": 40},
                },
                "train": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1},
                "scale": {"workers": 1, "max_failures": 0},
                "output": str(tmp_path / "run"),
            }
        ),
        Progress.silent(),
    )
    assert {"loss", "eval_loss"} <= result.metrics.keys()
    predictor = Predictor.load(result.model, device="cpu")
    task = predictor.task
    rows = list(shapes.records(task.record, 0, "eval", 0, 4))
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(rows[0])}
    batch = task.collate(task.encode(columns))
    labels = batch.pop("labels")
    if predictor.model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = labels.clamp(min=0)
    kind: Any = getattr(transformers, task.auto_class)
    plain = kind.from_pretrained(result.model, use_safetensors=True).eval()
    learned = kind.from_config(plain.config).eval()
    assert load_weights(folder_of(f"{result.run}/checkpoints", 2), learned) == 2
    with torch.inference_mode():
        ours, theirs, before = (model(**batch) for model in (predictor.model, plain, learned))
    shared = [key for key in ("logits", "start_logits", "end_logits") if key in ours]
    assert shared
    for key in shared:
        assert torch.equal(ours[key], theirs[key])
        assert torch.equal(before[key], theirs[key])
        assert torch.isfinite(ours[key]).all()
    metrics = task.summarise(predictor.measure(columns))
    assert task.headline in metrics
    assert metrics.keys() == task.baseline(columns, columns).keys()
