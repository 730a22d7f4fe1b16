"""Checkpoints come back as they went, and broken ones do not count."""

import json
import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from llmray.job.errors import StoreError
from llmray.job.training import Train
from llmray.store import place
from llmray.training.checkpoint import (
    Saver,
    best_good,
    damage,
    folder_of,
    load_state,
    manifest_of,
    newest_good,
    prune,
    save_state,
)
from llmray.training.optim import optimizer


def learner(seed: int = 0) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 4)
    return model, optimizer(model, Train())


def step(model: torch.nn.Module, optim: torch.optim.Optimizer) -> None:
    model(torch.ones(1, 4)).square().sum().backward()
    optim.step()
    optim.zero_grad()


def saved(root: Path, *steps: int, losses: dict[int, float] | None = None) -> list[Path]:
    model, optim = learner()
    folders = [Path(folder_of(str(root), number)) for number in steps]
    for number, folder in zip(steps, folders, strict=True):
        about = {"eval_loss": losses[number]} if losses and number in losses else {}
        save_state(str(folder), model, optim, number, {}, about)
    return folders


def flip(file: Path, position: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


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
    told: list[str] = []
    assert newest_good(str(tmp_path), told.append) == folder_of(str(tmp_path), 100)
    assert told == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("cut", r"state\.pt is not as it was written"),
        ("no manifest", "saving it was cut short"),
        ("half a manifest", r"manifest\.json is not as it was written"),
        ("an empty manifest", r"manifest\.json is not as it was written"),
        ("another's manifest", r"state\.pt is not as it was written"),
        ("no state", r"state\.pt is missing"),
    ],
)
def test_broken_checkpoints_are_passed_over_by_name(tmp_path: Path, harm: str, said: str) -> None:
    good, bad = saved(tmp_path, 10, 20)
    state, manifest = bad / "state.pt", bad / "manifest.json"
    if harm == "cut":
        state.write_bytes(state.read_bytes()[:-100])
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "half a manifest":
        manifest.write_text(manifest.read_text()[:9])
    elif harm == "an empty manifest":
        manifest.write_text("")
    elif harm == "another's manifest":
        manifest.write_bytes((good / "manifest.json").read_bytes())
    else:
        state.unlink()
    told: list[str] = []
    assert newest_good(str(tmp_path), told.append) == str(good)
    (warning,) = told
    assert warning.startswith(f"{bad}: ")
    assert warning.endswith(f"; going on from {good}")
    assert re.search(said, warning)


def test_a_thousand_flipped_bits_are_all_found(tmp_path: Path) -> None:
    good, bad = saved(tmp_path, 10, 20)
    chance, files = random.Random(0), sorted(bad.iterdir())
    assert [file.name for file in files] == ["manifest.json", "state.pt"]
    whole = {file: file.read_bytes() for file in files}
    for _ in range(1000):
        file = chance.choice(files)
        flip(file, chance.randrange(len(whole[file])), chance.randrange(8))
        told: list[str] = []
        assert newest_good(str(tmp_path), told.append) == str(good)
        assert len(told) == 1
        file.write_bytes(whole[file])
    assert newest_good(str(tmp_path)) == str(bad)


def test_nothing_whole_is_said_too(tmp_path: Path) -> None:
    assert newest_good(str(tmp_path / "absent")) is None
    (only,) = saved(tmp_path, 10)
    flip(only / "state.pt", 300, 0)
    told: list[str] = []
    assert newest_good(str(tmp_path), told.append) is None
    assert told == [f"{only}: state.pt is not as it was written; going on from the beginning"]


def test_the_best_is_the_lowest_that_is_whole(tmp_path: Path) -> None:
    folders = saved(tmp_path, 10, 20, 30, 40, losses={10: 3.0, 20: 1.0, 30: 2.0})
    assert best_good(str(tmp_path)) == str(folders[1])
    flip(folders[1] / "state.pt", 300, 0)
    told: list[str] = []
    assert best_good(str(tmp_path), told.append) == str(folders[2])
    assert told == [f"{folders[1]}: state.pt is not as it was written; it cannot become the model"]


def test_prune_keeps_the_newest_and_if_told_so_the_best(tmp_path: Path) -> None:
    folders = saved(tmp_path, 10, 20, 30, 40, 50, losses={10: 3.0, 20: 1.0, 30: 2.0})
    prune(str(tmp_path), 50, 2, keep_best=True)
    assert [folder.exists() for folder in folders] == [False, True, False, True, True]
    prune(str(tmp_path), 50, 2)
    assert [folder.exists() for folder in folders] == [False, False, False, True, True]


def test_a_run_that_went_back_is_not_robbed_by_what_was_broken(tmp_path: Path) -> None:
    """30 and 40 were broken, the run went on from 10 and saved 20: that, not 40, is the newest."""
    folders = saved(tmp_path, 10, 20, 30, 40)
    prune(str(tmp_path), 20, 2)
    assert [folder.exists() for folder in folders] == [True, True, False, False]


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
    saver.save(model, optim, 2, {}, {"rows": 32})
    saver.wait()
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000002"]
    told = manifest_of(str(tmp_path / "step-00000002"))
    assert (told["step"], told["rows"]) == (2, 32)
    assert set(told["files"]) == {"state.pt"}
    assert len(told["files"]["state.pt"]["sha256"]) == 64


# --- storage that fails ---------------------------------------------------------------------------------------------


class Away(MemoryFileSystem):
    """Storage that refuses to write what `refuse` says."""

    protocol = "away"
    store: dict[str, Any] = {}  # noqa: RUF012 — as in the base class
    pseudo_dirs = [""]  # noqa: RUF012
    refuse: Callable[[bytes], OSError | None] = staticmethod(lambda data: None)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode, **options)
        write = file.write

        def judged(data: bytes) -> int:
            if error := Away.refuse(data):
                raise error
            return write(data)

        file.write = judged
        return file


fsspec.register_implementation("away", Away, clobber=True)
SILENT = TimeoutError("storage does not answer")


def test_storage_that_comes_back_costs_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts at saving fail, each at another write; the fourth succeeds."""
    writes, root, told = count(), "away://back/checkpoints", list[str]()
    monkeypatch.setattr(place, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(Away, "refuse", staticmethod(lambda data: SILENT if next(writes) in (0, 3, 9) else None))
    saver = Saver(root, keep=2, warn=told.append)
    saver.save(*learner(), 1, {})
    saver.wait()
    assert newest_good(root) == folder_of(root, 1)
    assert next(writes) > 10
    (warning,) = told
    assert "saving away://back/checkpoints/step-00000001 failed: storage does not answer; trying again" in warning


def test_storage_that_stays_away_is_named_and_what_was_saved_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    root = "away://gone/checkpoints"
    save_state(folder_of(root, 1), *learner(), 1, {})
    monkeypatch.setattr(place, "OUTAGE_S", 0.1)
    monkeypatch.setattr(place, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(Away, "refuse", staticmethod(lambda data: SILENT))
    saver = Saver(root, keep=1, warn=lambda text: None)
    saver.save(*learner(), 2, {})
    with pytest.raises(StoreError, match=r"saving away://gone/checkpoints/step-00000002 failed .* mend"):
        saver.wait()
    assert newest_good(root) == folder_of(root, 1)


def test_a_disk_that_is_full_at_any_byte_costs_only_that_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 sizes at which there is no room: nothing half-written stays, and the checkpoint before is whole."""
    root, chance = "away://full/checkpoints", random.Random(0)
    save_state(folder_of(root, 1), *learner(), 1, {})
    size = manifest_of(folder_of(root, 1))["files"]["state.pt"]["bytes"]
    monkeypatch.setattr(place, "OUTAGE_S", 0)
    for _ in range(200):
        room = [chance.randrange(size)]

        def full(data: bytes, room: list[int] = room) -> OSError | None:
            room[0] -= len(data)
            return OSError(28, "No space left on device") if room[0] < 0 else None

        monkeypatch.setattr(Away, "refuse", staticmethod(full))
        saver = Saver(root, keep=1)
        saver.save(*learner(), 2, {})
        with pytest.raises(StoreError, match="No space left"):
            saver.wait()
        assert place.listdir(root) == ["step-00000001"]
        assert damage(folder_of(root, 1)) is None


# --- kills ----------------------------------------------------------------------------------------------------------


def _save_for_ever(root: str, done: Connection) -> None:
    torch.set_num_threads(1)
    model = torch.nn.Linear(200, 200)
    optim = optimizer(model, Train())
    saver = Saver(root, keep=2)
    for number in count(1):
        with torch.no_grad():
            model.weight.fill_(number)
        saver.save(model, optim, number, {})
        saver.wait()
        done.send(number)


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_in_the_middle_of_saving_lose_nothing(kills: int, tmp_path: Path) -> None:
    """By SIGKILL: the newest checkpoint that counts is whole, and is the last that was said to be saved, or later."""
    forked, chance, torn = multiprocessing.get_context("fork"), random.Random(0), 0
    saved(tmp_path / "first", 1)  # what saving imports, each fork has then
    for trial in range(kills):
        root = str(tmp_path / str(trial))
        here, there = forked.Pipe(duplex=False)
        saving = forked.Process(target=_save_for_ever, args=(root, there))
        saving.start()
        there.close()
        here.recv()
        time.sleep(chance.random() * 0.03)
        os.kill(saving.pid, signal.SIGKILL)
        saving.join()
        acknowledged = 1
        try:
            while True:
                acknowledged = here.recv()
        except EOFError:
            pass
        told: list[str] = []
        found = newest_good(root, told.append)
        torn += len(told)
        assert found
        model = torch.nn.Linear(200, 200)
        number, _ = load_state(found, model, optimizer(model, Train()))
        assert number >= acknowledged
        assert bool((model.weight == number).all())
    assert torn >= kills / 10, "too few kills hit a save"


def test_the_manifest_is_json_that_people_can_read(tmp_path: Path) -> None:
    (folder,) = saved(tmp_path, 7, losses={7: 1.5})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["step"], manifest["eval_loss"]) == (7, 1.5)
