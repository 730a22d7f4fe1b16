"""Two workers that stop and go on end as those that never stopped: what dropout drops next is kept of each of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from llmray.job.schema import Job
from llmray.model.load import processor
from llmray.store import place
from llmray.stream.blocks import Write
from llmray.stream.feed import Portion
from llmray.stream.steps import arrow
from llmray.tasks import make
from llmray.training.attempt import Attempt, Seat, Work

Workers: TypeAlias = Callable[[Callable[[int], Any], int], list[Any]]
STEPS, ROWS, LENGTH, WORDS = 12, 40, 8, 13


def model(folder: Path, dropout: float) -> str:
    """A small GPT-2 with random weights, and a tokenizer beside it."""
    torch.manual_seed(0)
    size = {"vocab_size": WORDS, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}
    rates = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), dropout)
    GPT2LMHeadModel(GPT2Config(**size, **rates, eos_token_id=0)).save_pretrained(folder)  # type: ignore[arg-type]
    words = {"<end>": 0} | {f"w{number}": number for number in range(1, WORDS)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words)), eos_token="<end>").save_pretrained(folder)
    return str(folder)


def store(folder: Path) -> Portion:
    ids = torch.randint(1, WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1)).tolist()
    lines = Write(str(folder))(arrow({"input_ids": ids})).to_pylist()
    about = {"task": {}, "processor": "", "job": {}, "result": {}, "schema": {"input_ids": "list<element: int32>"}}
    place.write_text(place.join(str(folder), "manifest.json"), json.dumps({"shards": lines} | about))
    return Portion((str(folder),))


def work(folder: Path, output: Path, dropout: float, **train: Any) -> Work:
    given = {
        "task": {"name": "causal_lm", "seq_len": LENGTH},
        "model": {"from": model(folder / "model", dropout)},
        "train": {"steps": STEPS, "batch_size": 8, "learning_rate": 0.01, "log_every": 1, "precision": "fp32"} | train,
        "scale": {"workers": 2},
        "output": str(output),
    }
    job = Job.model_validate(given)
    assert job.model is not None
    return Work(job, make(job.task, processor(job.model)), STEPS, (store(folder / "store"),))


def learned(work: Work, stop: int = STEPS) -> list[tuple[float, float]]:
    """What one worker does up to a step: the loss and the gradient's norm of each."""
    attempt = Attempt(work, Seat(dist.get_rank(), dist.get_world_size()), {}, work.checkpoints)
    rows = list(attempt.rows(lambda: attempt.metrics.get("step", 0) + 1 >= stop))
    attempt.finish()
    return [(row["loss"], row["grad_norm"]) for row in rows]


@pytest.mark.parametrize(
    ("dropout", "train"),
    [(0.2, {}), (0.2, {"accumulate": 2, "optimizer": "muon"}), (0.0, {"lora": {"dropout": 0.2, "rank": 2}})],
    ids=["the model's own", "in accumulated passes", "LoRA's"],
)
def test_dropout_goes_on_where_it_was(dropout: float, train: dict[str, Any], workers: Workers, tmp_path: Path) -> None:
    whole, cut = (work(tmp_path, tmp_path / name, dropout, **train) for name in ("whole", "cut"))
    unbroken = workers(lambda _: learned(whole), 2)
    before = workers(lambda _: learned(cut, 5), 2)
    assert len(before[0]) == 5
    assert [a + b for a, b in zip(before, workers(lambda _: learned(cut), 2), strict=True)] == unbroken
    weights = [(Path(each.job.output) / "model" / "model.safetensors").read_bytes() for each in (whole, cut)]
    assert weights[0] == weights[1]
