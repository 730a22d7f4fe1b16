"""Checkpoints come back as they went, and broken ones do not count."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llmray.job.schema import Train
from llmray.training.checkpoint import Saver, folder_of, is_good, load_state, newest_good, prune, save_state
from llmray.training.optim import optimizer


def learner(seed: int = 0) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 4)
    return model, optimizer(model, Train())


def step(model: torch.nn.Module, optim: torch.optim.Optimizer) -> None:
    model(torch.ones(1, 4)).square().sum().backward()
    optim.step()
    optim.zero_grad()


def saved(root: Path, *steps: int) -> list[Path]:
    model, optim = learner()
    folders = [Path(folder_of(str(root), number)) for number in steps]
    for number, folder in zip(steps, folders, strict=True):
        save_state(str(folder), model, optim, number, {})
    return folders


def test_round_trip_goes_on_as_if_unbroken(tmp_path: Path) -> None:
    model, optim = learner()
    step(model, optim)
    extra: Any = {"random": [{"cpu": torch.get_rng_state()}], "metrics": {"loss": 1.5, "step": 1}}
    save_state(str(tmp_path / "c"), model, optim, 1, extra)
    other, other_optim = learner(seed=9)
    number, found = load_state(str(tmp_path / "c"), other, other_optim)
    assert number == 1
    assert found["metrics"] == {"loss": 1.5, "step": 1}
    assert torch.equal(found["random"][0]["cpu"], extra["random"][0]["cpu"])
    step(model, optim)
    step(other, other_optim)
    assert torch.equal(model.weight, other.weight)


def test_a_checkpoint_is_read_without_running_code(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    torch.save({"model": Path("x")}, tmp_path / "c" / "state.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_state(str(tmp_path / "c"), *learner())


def test_newest_whole_checkpoint_wins(tmp_path: Path) -> None:
    saved(tmp_path, 9, 10, 100)
    assert newest_good(str(tmp_path)) == folder_of(str(tmp_path), 100)


@pytest.mark.parametrize("harm", ["cut", "flipped bit", "no manifest", "half a manifest", "no state"])
def test_broken_checkpoints_are_skipped(tmp_path: Path, harm: str) -> None:
    good, bad = saved(tmp_path, 10, 20)
    state, manifest = bad / "state.pt", bad / "manifest.json"
    data = state.read_bytes()
    if harm == "cut":
        state.write_bytes(data[:-100])
    elif harm == "flipped bit":
        state.write_bytes(data[:300] + bytes([data[300] ^ 1]) + data[301:])
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "half a manifest":
        manifest.write_text(manifest.read_text()[:9])
    else:
        state.unlink()
    assert not is_good(str(bad))
    assert newest_good(str(tmp_path)) == str(good)


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    assert newest_good(str(tmp_path / "absent")) is None


def test_prune_keeps_the_newest_whole_ones(tmp_path: Path) -> None:
    folders = saved(tmp_path, 10, 20, 30, 40)
    (folders[3] / "manifest.json").unlink()  # being written
    prune(str(tmp_path), 2)
    assert [folder.exists() for folder in folders] == [False, True, True, True]


def test_the_saver_writes_a_copy_and_keeps_few(tmp_path: Path) -> None:
    model, optim = learner()
    saver = Saver(str(tmp_path), keep=1)
    step(model, optim)
    saver.save(model, optim, 1, {})
    before = model.weight.detach().clone()
    step(model, optim)
    saver.wait()
    other, other_optim = learner(seed=9)
    load_state(folder_of(str(tmp_path), 1), other, other_optim)
    assert torch.equal(other.weight, before)
    saver.save(model, optim, 2, {})
    saver.wait()
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000002"]
    assert json.loads((tmp_path / "step-00000002" / "manifest.json").read_text())["step"] == 2


def test_a_checkpoint_that_cannot_be_written_is_heard_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    saver = Saver(str(tmp_path / "file"), keep=1)
    saver.save(*learner(), 1, {})
    with pytest.raises(OSError, match="file"):
        saver.wait()
