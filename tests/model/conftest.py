"""Tiny random models of every family, saved once, and the tokenizer that they share."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from llmray.corpus import shapes
from llmray.corpus.record import Document, Pair
from llmray.corpus.tokenizer import train
from llmray.job.load import load
from llmray.job.schema import Model
from llmray.model.load import build, processor, save
from llmray.tasks import TASKS, make
from llmray.tasks.base import Task

Fresh = Callable[..., tuple[Task, PreTrainedModel]]
Saved = Callable[[str, str], str]
Spoiled = Callable[..., str]


def section(name: str, **given: Any) -> Any:
    return load({"task": {"name": name} | given}).task


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices lose by being shared out: four times the CPU time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def options() -> Callable[..., Any]:
    """`options(task, **given)` → a task's section as the job file gives it."""
    return section


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    texts = [d.text for d in shapes.records(Document, 0, "train", 0, 200)]
    folder = tmp_path_factory.mktemp("tokenizer")
    texts += [p.target for p in shapes.records(Pair, 0, "train", 0, 200)]
    train(texts, 500, extra=TASKS["span_corruption"].special_tokens).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def fresh(tokenizer_folder: str) -> Fresh:
    """`fresh(task, preset, seed=0, **options)` → the task and a random model."""

    def one(name: str, preset: str, seed: int = 0, **given: Any) -> tuple[Task, PreTrainedModel]:
        model = Model.model_validate({"from": f"new:{preset}", "tokenizer": tokenizer_folder})
        task = make(section(name, **given), processor(model))
        torch.manual_seed(seed)
        return task, build(model, task).eval()

    return one


@pytest.fixture(scope="session")
def saved(fresh: Fresh, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """`saved(task, family)` → the folder of a random tiny model, written once; not to be changed."""
    root, known = tmp_path_factory.mktemp("saved"), set[Path]()

    def one(name: str, family: str) -> str:
        folder = root / f"{name}-{family}"
        if folder not in known:
            task, model = fresh(name, f"{family}-tiny")
            save(model, task, str(folder))
            known.add(folder)
        return str(folder)

    return one


@pytest.fixture
def spoiled(saved: Saved, tmp_path: Path) -> Spoiled:
    """`spoiled(change, task, family)` → a copy of a saved model with `change(folder)` done to it."""

    def one(change: Callable[[Path], object], name: str = "qa", family: str = "bert") -> str:
        folder = tmp_path / "spoiled"
        shutil.copytree(saved(name, family), folder)
        change(folder)
        return str(folder)

    return one
