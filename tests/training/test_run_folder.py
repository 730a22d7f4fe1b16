"""Whose run folder it is."""

from pathlib import Path

import pytest

from llmray.job.errors import StoreError
from llmray.job.load import load
from llmray.job.results import TrainResult
from llmray.store import folder

BASE = {"task": "qa", "model": {"from": "new:bert-tiny"}, "data": {"train": "a.json"}, "train": {"steps": 5}}


def claimed(output: Path, *overrides: str) -> str:
    return folder.claim(str(output), load(BASE, overrides))


def begun(output: Path, *overrides: str) -> None:
    folder.begin(str(output), load(BASE, overrides))


def test_a_run_is_new_then_resumed_then_done(tmp_path: Path) -> None:
    assert claimed(tmp_path) == "new"
    begun(tmp_path)
    assert claimed(tmp_path) == "resume"
    result = TrainResult(run=str(tmp_path), model="m", steps=5, model_step=5, metrics={"loss": 1.0}, seconds=2.0)
    folder.mark_done(str(tmp_path), result)
    assert claimed(tmp_path) == "done"
    assert TrainResult(**folder.result_of(str(tmp_path))) == result


def test_another_job_is_refused_with_every_differing_key(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    with pytest.raises(StoreError, match="another job") as caught:
        claimed(tmp_path, "train.steps=6", "data.train=b.json")
    said = str(caught.value)
    assert "train.steps: 5 there, 6 in this job" in said
    assert "data.train.0.path: 'a.json' there, 'b.json' in this job" in said
    assert "output=" in said


def test_a_run_that_saved_nothing_yields_its_folder(tmp_path: Path) -> None:
    begun(tmp_path)
    assert claimed(tmp_path, "train.learning_rate=0.1") == "new"


@pytest.mark.parametrize(
    "override", ["scale.max_failures=9", "train.log_every=3", "train.loggers=[mlflow]", "evaluate.limit=3", "output=x"]
)
def test_keys_that_do_not_change_the_outcome_may_change(tmp_path: Path, override: str) -> None:
    begun(tmp_path)
    assert claimed(tmp_path, override) == "resume"


def test_an_older_job_that_lacks_a_key_had_its_default() -> None:
    old = load(BASE).model_dump(mode="json", by_alias=True)
    del old["train"]["seed"]
    assert folder.differences(old, load(BASE), folder.SECTIONS, "there") == ""
    said = folder.differences(old, load(BASE, ["train.seed=1", "output=x"]), folder.SECTIONS, "there")
    assert said == "  train.seed: 0 there, 1 in this job"


def test_the_command_that_goes_on_can_be_pasted() -> None:
    assert folder.command("/runs/a b") == "llmray train '/runs/a b/job.yaml'"


def test_a_job_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("tsak: qa")
    with pytest.raises(StoreError, match=r"job\.yaml.*another output"):
        claimed(tmp_path)
