"""The classes of a corpus are found before training, in streams as in prepared stores, and kept with the model."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmray.job.errors import DataError
from llmray.job.load import load
from llmray.job.schema import Job
from llmray.model.load import card
from llmray.store.journal import Progress
from llmray.stream.prepare import prepare
from llmray.training.plan import plan
from llmray.training.run import train

pytestmark = pytest.mark.usefixtures("ray_cluster")


def job_of(output: Path, found: list[Any], **task: Any) -> Job:
    rows = [{"text": f"text number {n}", "label": label} for n, label in enumerate(found)]
    (output / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load(
        {
            "task": {"name": "classification", "max_length": 16} | task,
            "model": {"from": "new:bert-tiny"},
            "data": {"train": str(output / "rows.jsonl"), "tokenizer": {"vocab_size": 300}},
            "train": {"steps": 1, "batch_size": 4},
            "scale": {"workers": 1, "max_failures": 0},
            "output": str(output / "run"),
        }
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a", "c", "a"], ("a", "b", "c")),
        ([10, 9, 2, 2], ("2", "9", "10")),
        ([True, False] * 2, ("false", "true")),
    ],
)
def test_classes_are_found_and_sorted(labels: list[Any], expected: tuple[str, ...], tmp_path: Path) -> None:
    work, _ = plan(job_of(tmp_path, labels))
    assert work.task.options.labels == expected
    assert work.job.task == work.task.options


def test_classes_that_are_named_keep_their_order(tmp_path: Path) -> None:
    work, _ = plan(job_of(tmp_path, ["b", "a", "a", "b"], labels=("b", "a", "none")))
    assert work.task.options.labels == ("b", "a", "none")


@pytest.mark.parametrize(
    ("labels", "task", "words"),
    [
        (["a"] * 4, {}, "all rows have the label 'a'; a classifier needs two or more"),
        ([n / 7 for n in range(1001)], {}, "1001 different labels, such as .*Numbers to be told need task.regression"),
        (["a", "b", "a", "b"], {"labels": ("a", "c")}, "label 'b' is none of a, c"),
        (["a", "b", "a", "b"], {"regression": True}, "label 'a' is no number"),
    ],
)
def test_labels_that_cannot_be_learned(labels: list[Any], task: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        plan(job_of(tmp_path, labels, **task))


@pytest.mark.parametrize("task", [{}, {"labels": ("a", "b")}, {"regression": True}])
def test_a_corpus_without_labels_is_refused_before_workers_start(
    task: dict[str, Any], models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tokenizer that is there already, so that nothing else reads the corpus before."""
    job = load(job_of(tmp_path, ["a"] * 4, **task), ["scale.workers=2", f"model.tokenizer={models['classification']}"])
    rows = [{"text": f"text number {n}", "class": "a"} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("llmray.training.driver.on_workers", None)
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1: .*no column 'label'; found: text, class"):
        train(job, Progress.silent())


def test_a_prepared_store_tells_its_classes(tmp_path: Path) -> None:
    job = job_of(tmp_path, ["b", "a", "c", "a"])
    prepare(job.model_copy(update={"output": str(tmp_path / "store")}), Progress.silent())
    stored = load(job, [f"data.train={tmp_path / 'store'}"])
    result = train(stored, Progress.silent())
    assert card(result.model)["task"]["labels"] == ["a", "b", "c"]
    assert json.loads(Path(result.model, "config.json").read_text())["id2label"] == {"0": "a", "1": "b", "2": "c"}
    numbers = load(stored, ["task.regression=true", f"output={tmp_path / 'numbers'}"])
    with pytest.raises(DataError, match=r"which differs from this one: regression: False there, True here"):
        plan(numbers)


def test_numbers_are_learned(tmp_path: Path) -> None:
    result = train(job_of(tmp_path, [0.5, -1, "2", 3], regression=True), Progress.silent())
    config = json.loads(Path(result.model, "config.json").read_text())
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "value"})
