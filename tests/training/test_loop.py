"""The loop on a model of one matrix, with batches whose target counts differ."""

import math
import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from llmray.job.training import Train
from llmray.tasks.base import Tensors
from llmray.training.loop import DivergedError, Row, fit, mean_loss, with_patience
from llmray.training.optim import optimizer
from llmray.training.parallel import Learner

ROWS, WORDS = 16, 7


class NextWord:
    """The task's part that the loop uses."""

    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        scores = model(batch["input_ids"])
        labels = batch["labels"]
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="sum")
        return loss, (labels != -100).sum()


def corpus() -> Tensors:
    """16 rows of which the first half has far fewer targets than the second."""
    ids = torch.randint(0, WORDS, (ROWS, 8), generator=torch.Generator().manual_seed(1))
    labels = ids.roll(-1, 1)
    labels[: ROWS // 2, 2:] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def parts(size: int, rows: slice = slice(None)) -> Iterator[Tensors]:
    """The corpus again and again in batches of `size`."""
    whole = {name: tensor[rows] for name, tensor in corpus().items()}
    while True:
        for start in range(0, len(whole["labels"]), size):
            yield {name: tensor[start : start + size] for name, tensor in whole.items()}


def model_of() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(WORDS, 5), torch.nn.Linear(5, WORDS))


def trained(size: int, steps: int = 3, batches: Iterator[Tensors] | None = None, **keys: Any) -> tuple[Any, list]:
    train = Train(**{"batch_size": ROWS, "learning_rate": 0.1, "precision": "fp32", "log_every": 1} | keys)
    model = model_of()
    found = fit(Learner(model, NextWord()), batches or parts(size), train, steps, optimizer=optimizer(model, train))  # type: ignore[arg-type]
    rows = list(found)
    return [p.detach().clone() for p in model.parameters()], rows


def fitted(train: Train, steps: int, **how: Any) -> Iterator[Row]:
    """The rows of a fresh model's run over the whole corpus at a time."""
    model = model_of()
    return fit(Learner(model, NextWord()), parts(16), train, steps, optimizer=optimizer(model, train), **how)  # type: ignore[arg-type]


def close(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-6, rtol=0) for a, b in zip(one, other, strict=True))


def test_accumulation_is_exact() -> None:
    """One pass of 16 rows equals two of 8 and four of 4, though their target counts differ."""
    whole, _ = trained(16)
    for accumulate in (2, 4):
        split, _ = trained(16 // accumulate, accumulate=accumulate)
        assert close(whole, split)


def test_log_rows_hold_the_mean_over_targets() -> None:
    _, rows = trained(16, steps=1, schedule="constant")
    assert rows[0]["step"] == 1
    assert rows[0]["learning_rate"] == 0.1
    with torch.no_grad():
        loss, count = NextWord().loss(model_of(), corpus())
    assert rows[0]["loss"] == pytest.approx(float(loss / count), rel=1e-6)
    assert int(count) == 8 * 2 + 8 * 8


def test_loss_falls() -> None:
    _, rows = trained(16, steps=30)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3


def test_clipping_bounds_the_step_and_reports_the_norm_before() -> None:
    loose, rows = trained(16, steps=1, clip_norm=None)
    tight, same = trained(16, steps=1, clip_norm=1e-9)
    assert rows[0]["grad_norm"] == pytest.approx(same[0]["grad_norm"])
    assert not close(loose, tight)


@pytest.mark.parametrize("clip", [0.01, 1e3])
def test_a_clipped_step_is_as_long_as_the_rate_times_the_limit(clip: float) -> None:
    """Of plain gradient descent; a gradient below the limit is left as it is."""
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    after, rows = trained(16, steps=1, clip_norm=clip, **plain)
    way = [b - a.detach() for a, b in zip(model_of().parameters(), after, strict=True)]
    assert torch.nn.utils.get_total_norm(way).item() == pytest.approx(0.1 * min(clip, rows[0]["grad_norm"]), rel=1e-3)


def test_products_in_bf16_learn_nearly_the_same_and_weights_stay_whole() -> None:
    (_, whole), (weights, half) = (trained(16, steps=30, precision=name) for name in ("fp32", "bf16"))
    assert half[0]["loss"] != whole[0]["loss"]
    assert half[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-2)
    assert half[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=1e-2)
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_rows_come_when_they_are_due() -> None:
    train = Train(batch_size=ROWS, log_every=4, eval_every=3, checkpoint_every=5, precision="fp32")
    saved: list[int] = []
    rows = list(fitted(train, 7, evaluate=lambda: {"eval_loss": 1.0}, on_checkpoint=saved.append))
    assert [row["step"] for row in rows if "loss" in row] == [4, 7]
    assert [row["step"] for row in rows if "eval_loss" in row] == [3, 6, 7]
    assert saved == [5, 7]


def test_asked_to_stop_it_saves_and_ends() -> None:
    train = Train(batch_size=ROWS, precision="fp32")
    saved: list[int] = []
    found = fitted(train, 100, on_checkpoint=saved.append, should_stop=lambda: True)
    assert [row["step"] for row in found] == [1]
    assert saved == [1]


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved() -> None:
    train = Train(batch_size=ROWS, learning_rate=0.1, precision="fp32", checkpoint_every=1)
    model, saved = model_of(), []
    found = fit(
        Learner(model, NextWord()), parts(16), train, 9, optimizer=optimizer(model, train), on_checkpoint=saved.append
    )  # type: ignore[arg-type]
    with torch.no_grad():
        next(model.parameters())[0] = math.nan
    with pytest.raises(DivergedError, match=r"step 1.*train\.learning_rate"):
        list(found)
    assert saved == []


def torn(at: int) -> Iterator[Tensors]:
    """The corpus again and again, with numbers that are none in the given batch, counted from 1."""
    for number, batch in enumerate(parts(16), 1):
        yield batch | {"factor": torch.tensor(math.nan if number == at else 1.0)}


class Factored(NextWord):
    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = super().loss(model, batch)
        return loss * batch["factor"], targets


@pytest.mark.parametrize("keys", [{}, {"checkpoint_every": 5}])
def test_the_first_step_that_broke_is_named_with_its_batch_however_late_it_is_seen(keys: dict[str, int]) -> None:
    train = Train(batch_size=ROWS, learning_rate=0.1, precision="fp32", log_every=10, **keys)
    model, seen, saved = model_of(), list[Row](), list[int]()
    learner = Learner(model, Factored())  # type: ignore[arg-type]
    how: dict[str, Any] = {"batch_of": lambda step: f"that of {step}", "on_checkpoint": saved.append}
    with pytest.raises(DivergedError, match=r"at step 3 for the first time loss \(nan\).*\nIts batch: that of 3$"):
        seen.extend(fit(learner, torn(3), train, 30, optimizer=optimizer(model, train), **how))
    assert (seen, saved) == ([], [])


@pytest.mark.parametrize(("max_loss", "steps"), [(3.0, 2), (30.0, 30), (None, 30)])
def test_a_loss_above_what_the_job_allows_ends_the_run(max_loss: float | None, steps: int) -> None:
    spiked = (batch | {"factor": torch.tensor(9.0 if step == 2 else 1.0)} for step, batch in enumerate(parts(16), 1))
    train = Train(batch_size=ROWS, precision="fp32", learning_rate=1e-9, log_every=30, max_loss=max_loss)
    model, saved = model_of(), list[int]()
    found = fit(
        Learner(model, Factored()), spiked, train, 30, optimizer=optimizer(model, train), on_checkpoint=saved.append  # type: ignore[arg-type]
    )  # fmt: skip
    if steps == 30:
        assert [row["step"] for row in found] == saved == [30]
        return
    with pytest.raises(DivergedError, match=r"step 2 .* loss \(\d\d.*\) is above train.max_loss \(3\)"):
        list(found)
    assert saved == []


class Ruled(NextWord):
    """A loss that is infinite while its gradient is none, as of a word that a model has ruled out."""

    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = super().loss(model, batch)
        return loss + math.inf, targets


def test_a_loss_without_end_is_refused_though_its_gradient_is_a_number() -> None:
    train, model = Train(batch_size=ROWS, precision="fp32", log_every=1), model_of()
    learner = Learner(model, Ruled())  # type: ignore[arg-type]
    with pytest.raises(DivergedError, match=r"step 1 .*loss \(inf\) or gradient \(\d"):
        list(fit(learner, parts(16), train, 3, optimizer=optimizer(model, train)))


class Averaging(NextWord):
    """A summed loss as in `transformers`: a mean, which over no targets is no number, times their count."""

    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        loss = torch.nn.functional.cross_entropy(model(batch["input_ids"]).flatten(0, 1), batch["labels"].flatten())
        targets = (batch["labels"] != -100).sum()
        return loss * targets, targets


def test_a_batch_without_targets_counts_for_nothing() -> None:
    bare = corpus() | {"labels": torch.full((ROWS, 8), -100)}
    train, model = Train(batch_size=2 * ROWS, accumulate=2, precision="fp32", log_every=1), model_of()
    learner = Learner(model, Averaging())  # type: ignore[arg-type]
    (row,) = fit(learner, iter([bare, corpus()]), train, 1, optimizer=optimizer(model, train))
    _, (wanted,) = trained(16, steps=1)
    assert row["loss"] == pytest.approx(wanted["loss"])
    assert row["grad_norm"] == pytest.approx(wanted["grad_norm"])
    found = mean_loss(learner, [bare, corpus()], train, torch.device("cpu"))
    assert math.isfinite(found["eval_loss"])


def test_mean_loss_weighs_every_target_alike() -> None:
    model = model_of()
    with torch.no_grad():
        loss, count = NextWord().loss(model, corpus())
    halves = [{name: tensor[half] for name, tensor in corpus().items()} for half in (slice(0, 8), slice(8, 16))]
    found = mean_loss(Learner(model, NextWord()), halves, Train(precision="fp32"), torch.device("cpu"))  # type: ignore[arg-type]
    assert found["eval_loss"] == pytest.approx(float(loss / count), rel=1e-6)


def _worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    train = Train(batch_size=ROWS, accumulate=2, learning_rate=0.1, precision="fp32")
    raw = model_of()
    model = DistributedDataParallel(Learner(raw, NextWord()))  # type: ignore[arg-type]
    mine = parts(4, slice(rank * 8, rank * 8 + 8))  # rank 0 has 16 targets, rank 1 has 64
    list(fit(model, mine, train, 3, optimizer=optimizer(raw, train), world=2))
    torch.save([p.detach() for p in raw.parameters()], Path(folder, f"{rank}.pt"))
    dist.barrier()
    os._exit(0)  # a fork of a process with threads cannot take them down in order


def test_two_workers_equal_one(tmp_path: Path) -> None:
    """Workers with unequal target counts still take the step of the whole batch."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    forked = multiprocessing.get_context("fork")
    workers = [forked.Process(target=_worker, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    alone, _ = trained(16)
    for rank in range(2):
        assert close(alone, torch.load(tmp_path / f"{rank}.pt"))


def test_patience_counts_validations_without_a_new_best() -> None:
    seen: dict[str, float] = {}
    for loss, best, since in ((2.0, 2.0, 0), (1.5, 1.5, 0), (1.5, 1.5, 1), (1.6, 1.5, 2), (1.4, 1.4, 0)):
        row = with_patience({"step": 1, "eval_loss": loss}, seen)
        assert (row["best_eval_loss"], row["evals_since_best"]) == (best, since)
        seen |= row


def test_out_of_patience_it_saves_and_ends() -> None:
    train = Train(batch_size=ROWS, precision="fp32", eval_every=2, patience=2)
    saved: list[int] = []
    seen: dict[str, float] = {}
    how = {"evaluate": lambda: with_patience({"eval_loss": 1.0}, seen), "on_checkpoint": saved.append}
    for row in fitted(train, 100, **how):
        seen |= row
    assert seen["step"] == 6  # the first validation is the best, then two are not better
    assert saved == [6]


def test_a_wish_to_save_is_granted_after_the_same_step() -> None:
    train = Train(batch_size=ROWS, precision="fp32", checkpoint_every=4)
    wishes, saved = iter([False, True, False, False, False, False]), list[int]()
    list(fitted(train, 6, should_save=lambda: next(wishes), on_checkpoint=saved.append))
    assert saved == [2, 4, 6]


def test_a_number_beyond_fp16_costs_a_step_and_lowers_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a scale of 2^17 the loss itself is beyond 65504; halved at each step, the scale is soon one that serves."""
    monkeypatch.setattr("llmray.training.loop.FIRST_SCALE", 2.0**17)
    before = [p.detach() for p in model_of().parameters()]
    after_one, rows = trained(16, steps=1, precision="fp16")
    assert close(before, after_one)
    assert rows[0]["grad_norm"] == 0
    assert math.isfinite(rows[0]["loss"])
    _, rows = trained(16, steps=30, precision="fp16")
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3


def test_a_loss_that_is_no_number_ends_a_run_in_fp16_too() -> None:
    train = Train(batch_size=ROWS, learning_rate=0.1, precision="fp16", log_every=1)
    model = model_of()
    with torch.no_grad():
        next(model.parameters())[0] = math.nan
    learner = Learner(model, NextWord())  # type: ignore[arg-type]
    with pytest.raises(DivergedError, match="step 1"):
        list(fit(learner, parts(16), train, 9, optimizer=optimizer(model, train)))
