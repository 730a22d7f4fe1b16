"""Ray Train with the work split in other ways than the usual one."""

from pathlib import Path
from typing import Any

import pytest

from llmray.job.load import load
from llmray.job.schema import Job
from llmray.model.load import build, processor
from llmray.store import journal
from llmray.store.journal import Progress
from llmray.tasks import make
from llmray.training.run import train

pytestmark = pytest.mark.usefixtures("ray_cluster")


SHAPES = Path(__file__).with_name("shapes.yaml")


def job_of(output: Path, *overrides: str) -> Job:
    train = "train={steps: 12, batch_size: 16, learning_rate: 3e-3, eval_every: 4, precision: fp32}"
    return load(SHAPES, [train, "scale.workers=2", f"output={output}", *overrides])


def eval_losses(output: Path) -> list[float]:
    return [float(str(row["eval_loss"])) for row in journal.read(str(output / "metrics.jsonl")) if "eval_loss" in row]


def loss_of(job: Job, output: Path) -> Any:
    """Loss of the saved model on a sentence."""
    model = job.model.model_copy(update={"from_": str(output / "model"), "tokenizer": None})  # type: ignore[union-attr]
    task = make(job.task, processor(model))
    features = task.encode({"text": ["a red star is above a blue circle"] * 20})
    loss, count = task.loss(build(model, task).eval(), task.collate(features))
    return loss.item() / count.item()


@pytest.mark.slow
def test_fsdp_tells_and_saves_what_ddp_does(tmp_path: Path) -> None:
    jobs = [job_of(tmp_path / split, f"scale.parallel={split}") for split in ("ddp", "fsdp")]
    for job in jobs:
        train(job, Progress.silent())
    ddp, fsdp = (eval_losses(Path(job.output)) for job in jobs)
    assert len(ddp) == 3
    assert fsdp == pytest.approx(ddp, abs=1e-3)
    assert fsdp[-1] < fsdp[0]
    one, other = (loss_of(job, Path(job.output)) for job in jobs)
    assert other == pytest.approx(one, abs=1e-3)


@pytest.mark.slow
def test_workers_that_train_alone_meet_and_end_out_of_patience(tmp_path: Path) -> None:
    alone = ("scale.parallel=local_sgd", "scale.local_sgd.inner_steps=2", "train.checkpoint_every=4")
    # At a learning rate this small no validation betters the first.
    job = job_of(tmp_path / "run", *alone, "train.steps=400", "train.patience=1", "train.learning_rate=1e-30")
    result = train(job, Progress.silent())
    assert result.steps == 8
    assert result.metrics["evals_since_best"] == 1
    model, told = tmp_path / "run" / "model" / "model.safetensors", eval_losses(tmp_path / "run")
    weights = model.read_bytes()
    model.unlink()
    (tmp_path / "run" / "result.json").unlink()  # as if it had died just before
    assert train(job, Progress.silent()).steps == 8
    assert model.read_bytes() == weights
    assert eval_losses(tmp_path / "run") == told


def test_additions_are_learned_and_merged(tmp_path: Path) -> None:
    here = ("scale.workers=1", "scale.max_failures=0")
    base = job_of(tmp_path / "base", *here)
    first = train(base, Progress.silent())
    job = job_of(
        tmp_path / "tuned",
        *here,
        f"model.from={first.model}",
        "train.lora.rank=4",
        "train.activation_checkpointing=true",
    )
    train(job, Progress.silent())
    assert eval_losses(tmp_path / "tuned")[-1] < eval_losses(tmp_path / "base")[-1]
    assert loss_of(job, tmp_path / "tuned") < loss_of(base, tmp_path / "base")
