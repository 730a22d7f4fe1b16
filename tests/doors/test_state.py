"""What a run leaves behind: checkpoints that it can trust, a page, and after a failure its cause and the way on."""

import io
import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import torch
from safetensors.torch import load_file

from llmray.job.errors import DataError, LlmrayError, StoreError
from llmray.job.load import load
from llmray.job.results import TrainResult
from llmray.job.schema import Job
from llmray.store import journal, place
from llmray.store.journal import Progress
from llmray.training import attempt, checkpoint
from llmray.training.attempt import Attempt, Seat
from llmray.training.loop import DivergedError
from llmray.training.memory import MemoryExhaustedError
from llmray.training.plan import plan
from llmray.training.run import train

pytestmark = pytest.mark.usefixtures("ray_cluster")


SHAPES = Path(__file__).with_name("shapes.yaml")


def job_of(output: Path, *overrides: str) -> Job:
    """A few steps in this process: a row after every third, a checkpoint after every fourth."""
    few = ["data.train=builtin:shapes?rows=200", "data.eval=builtin:shapes?rows=20&split=eval"]
    train = "train={steps: 12, batch_size: 8, log_every: 3, eval_every: 4, checkpoint_every: 4}"
    here = "scale={workers: 1, max_failures: 0}"
    told = [*few, "data.tokenizer.sample_rows=100", train, here, f"output={output}"]
    return load(SHAPES, [*told, *overrides])


def trained(output: Path, *overrides: str) -> tuple[TrainResult, str]:
    """The result, and what was said."""
    said = io.StringIO()
    return train(job_of(output, *overrides), Progress(said)), said.getvalue()


def rows(output: Path) -> list[tuple[object, ...]]:
    """What does not depend on the clock."""
    found = journal.read(str(output / "metrics.jsonl"))
    return [
        (row["step"], *(row.get(key) for key in ("loss", "grad_norm", "learning_rate", "eval_loss"))) for row in found
    ]


def weights(output: Path) -> bytes:
    return (output / "model" / "model.safetensors").read_bytes()


def failure(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "failure.json").read_text())
    page = (output / "failure.html").read_text()
    assert found["kind"] in page
    assert escape(found["go_on"]) in page
    for name, value in found["rows"][-1].items() if found["rows"] else ():
        assert f"<th>{name}</th>" in page
        assert f"<td>{value:.4g}</td>" in page or f"<td>{value}</td>" in page
    assert all(escape(line) in page for line in found["log"].splitlines())
    return found


@pytest.fixture(scope="module")
def whole(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, its best checkpoint kept beside the newest."""
    output = tmp_path_factory.mktemp("whole")
    train(job_of(output, "train.keep_best=true"), Progress.silent())
    return output


def undone(whole: Path, output: Path) -> Path:
    """A copy of a run that ended before its last lines were written."""
    shutil.copytree(whole, output, dirs_exist_ok=True)
    (output / "result.json").unlink()
    shutil.rmtree(output / "model")
    return output


def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_costs_only_time(whole: Path, tmp_path: Path) -> None:
    output = undone(whole, tmp_path)
    state = output / "checkpoints" / "step-00000012" / "state.pt"
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    _, said = trained(output)
    assert (
        f"{state.parent}: state.pt is not as it was written; going on from {output}/checkpoints/step-00000008" in said
    )
    assert "resumed at step 8" in said
    assert rows(output) == rows(whole)
    assert weights(output) == weights(whole)


def test_checkpoints_of_another_job_are_refused_by_key(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(StoreError, match=r"step-00000012: was saved by another job:\n  train\.batch_size: 8 there, 4"):
        trained(tmp_path, "train.batch_size=4")
    assert failure(tmp_path)["kind"] == "another job"


def test_a_checkpoint_says_what_it_is(whole: Path) -> None:
    manifest = json.loads((whole / "checkpoints" / "step-00000008" / "manifest.json").read_text())
    assert (manifest["step"], manifest["rows"], manifest["workers"]) == (8, 64, 1)
    assert manifest["eval_loss"] == dict((row[0], row[4]) for row in rows(whole) if row[4])[8]
    assert manifest["job"]["train"]["batch_size"] == 8


def test_the_best_weights_become_the_model_when_asked_for(tmp_path: Path) -> None:
    """At this learning rate the loss rises."""
    keys = ("train.keep_best=true", "train.final_model=best", "train.keep_checkpoints=1")
    result, said = trained(tmp_path, *keys, "train.learning_rate=1", "train.schedule=constant")
    losses = {row[0]: row[4] for row in rows(tmp_path) if row[4]}
    best = min(losses, key=losses.__getitem__)
    assert best < 12
    assert (result.model_step, result.metrics["eval_loss"]) == (best, losses[best])
    assert f"the model is that of step {best}" in said
    kept = [f"step-{best:08d}", "step-00000012"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept
    state = torch.load(tmp_path / "checkpoints" / kept[0] / "state.pt", weights_only=True)["model"]
    model = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(model[name], state[name]) for name in model)


def test_rows_tell_of_waiting_and_memory(whole: Path) -> None:
    logged = [row for row in journal.read(str(whole / "metrics.jsonl")) if "loss" in row]
    assert all(0 < float(str(row["data_wait_s"])) < 60 for row in logged)
    assert all(50e6 < float(str(row["memory_bytes"])) < 100e9 for row in logged)
    assert all("flops_utilisation" not in row for row in logged)  # a CPU's peak is not known


def test_a_run_has_a_page_that_needs_nothing_else(whole: Path) -> None:
    page = (whole / "train.html").read_text()
    assert all(word in page for word in ("finished", "eval_loss", "learning rate", "tokens a second", "job.yaml"))
    assert not any(word in page for word in ("<script", "src=", "@import", "<link"))


def test_divergence_is_told_and_forgotten_once_a_run_ends_well(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        trained(tmp_path, "train.learning_rate=1e6", "train.clip_norm=null", "train.log_every=1")
    told = failure(tmp_path)
    assert told["kind"] == "diverged"
    assert "at step" in told["message"]
    assert "\nIts batch: rows " in told["message"]
    assert told["go_on"] == f"llmray train {tmp_path}/job.yaml"
    assert told["rows"]
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    trained(tmp_path)
    assert not list(tmp_path.glob("failure.*"))


@pytest.mark.slow
def test_divergence_on_workers_is_told_with_the_end_of_a_log(tmp_path: Path) -> None:
    """The job says that a run may go on three times; an error of ours ends it at once."""
    with pytest.raises(DivergedError):
        trained(tmp_path, "train.learning_rate=1e6", "train.clip_norm=null", "scale={workers: 2, max_failures: 3}")
    told = failure(tmp_path)
    assert (told["kind"], told["worker"] in (0, 1)) == ("diverged", True)
    assert told["log"]


def test_a_wrong_row_is_named(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"The star number {n} is red and small. " * 5}) for n in range(200)]
    lines[150] = '{"text": "torn'
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError):
        trained(tmp_path / "run", f"data.train={tmp_path}/rows.jsonl")
    told = failure(tmp_path / "run")
    assert told["kind"] == "data"
    assert "rows.jsonl" in told["message"]
    assert "151" in told["message"]


def test_want_of_memory_is_named_with_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any, **__: Any) -> Any:
        return torch.empty(1 << 60)

    monkeypatch.setattr(attempt, "fit", greedy)
    told = r"worker 0 of 1 \(cpu of .*\) ran out of memory.*\nIt took 8 rows at a time; train\.accumulate=2 takes 4"
    with pytest.raises(MemoryExhaustedError, match=told):
        trained(tmp_path)
    assert failure(tmp_path)["kind"] == "out of memory"


@pytest.mark.slow
def test_a_lost_worker_is_told_with_its_rank(tmp_path: Path) -> None:
    """SIGKILL of one of two workers that nobody starts again."""
    job = job_of(tmp_path, "scale.workers=2", "train.steps=4000", "data.eval=[]")
    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set() and not (worker_killed() if len(rows(tmp_path)) > 3 else False):
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(LlmrayError, match=r"after 0 restarts: worker [01]: lost: .*killed") as caught:
            train(job, Progress.silent())
    finally:
        ended.set()
        thread.join()
    assert caught.value.exit_code == 1
    told = failure(tmp_path)
    assert told["kind"] == "worker lost"
    assert told["worker"] in (0, 1)
    assert told["rows"]
    assert told["log"]


def worker_killed() -> bool:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker") and ours(int(folder.name)):
                os.kill(int(folder.name), signal.SIGKILL)
                return True
    return False


def ours(pid: int) -> bool:
    """Whether a process descends from this one: other clusters may run on the machine."""
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


def test_storage_away_for_a_moment_costs_a_warning(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first three writes to the journal fail."""
    append: Callable[..., None] = journal.append
    failures = iter([OSError(28, "No space left on device")] * 3)

    def failing(path: str, rows: Any) -> None:
        for error in failures:
            raise error
        append(path, rows)

    monkeypatch.setattr(journal, "append", failing)
    monkeypatch.setattr(place, "FIRST_PAUSE_S", 0.01)
    _, said = trained(tmp_path)
    assert "No space left on device; trying again" in said
    assert rows(tmp_path) == rows(whole)
    assert weights(tmp_path) == weights(whole)


class Filling(Progress):
    """Once step 4 is saved, no file of this process may grow as large as a checkpoint."""

    def __init__(self, output: Path) -> None:
        super().__init__(quiet=True)
        self.saved = str(output / "checkpoints" / "step-00000004")

    def update(self, label: str, step: int, **metrics: object) -> None:
        if step > 4:
            deadline = time.monotonic() + 60
            while checkpoint.damage(self.saved):
                assert time.monotonic() < deadline
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_disk_that_stays_full_costs_what_came_after_the_last_checkpoint(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "OUTAGE_S", 0.2)
    monkeypatch.setattr(place, "FIRST_PAUSE_S", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = r"saving .*/step-00000008 failed .* no room is left .* make room"
    try:
        with pytest.raises(StoreError, match=words) as caught:
            train(job_of(tmp_path), Filling(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 1
    assert failure(tmp_path)["kind"] == "storage"
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.name == "step-00000004"
    assert checkpoint.damage(str(kept)) is None
    _, said = trained(tmp_path)
    assert "resumed at step 4" in said
    assert rows(tmp_path) == rows(whole)
    assert weights(tmp_path) == weights(whole)
    assert not list(tmp_path.glob("failure.*"))


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__path__[0], reason="torch.compile needs a path without spaces")
def test_a_compiled_run_learns_the_same(whole: Path, tmp_path: Path) -> None:
    torch._dynamo.utils.counters.clear()
    trained(tmp_path, "train.compile=true", "data.eval=[]")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()
    there = [row for row in rows(whole) if row[1]]
    for row, other in zip(rows(tmp_path), there, strict=True):
        assert row == pytest.approx(other, rel=1e-2)


@pytest.mark.slow
def test_checkpoints_of_two_workers_load_on_one_and_on_four(tmp_path: Path) -> None:
    """Stored rows come in one order for any number of workers, so that the losses go on as they would have."""
    from llmray.stream.prepare import prepare

    store = tmp_path / "store"
    prepare(job_of(store), Progress.silent())
    told = (f"data.train={store}", "train.precision=fp32")
    trained(tmp_path / "two", *told, "scale.workers=2")
    for workers in (1, 4):
        output = undone(tmp_path / "two", tmp_path / str(workers))
        shutil.rmtree(output / "checkpoints" / "step-00000012")
        _, said = trained(output, *told, f"scale.workers={workers}")
        assert "resumed at step 8" in said
        there, here = rows(tmp_path / "two"), rows(output)
        assert [row[0] for row in here] == [row[0] for row in there]
        assert [row[1] or row[4] for row in here] == pytest.approx([row[1] or row[4] for row in there], rel=1e-3)


def test_the_scale_of_a_loss_in_fp16_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins at 2^40, beyond what fp16 can hold, and is halved until it serves."""
    monkeypatch.setattr("llmray.training.loop.FIRST_SCALE", 2.0**40)
    job = job_of(tmp_path, "train.precision=fp16", "scale.gpus_per_worker=1", "data.eval=[]")
    work, datasets = plan(job)

    def begun() -> Attempt:
        return Attempt(work, Seat(), {"train": datasets["train"].iterator()}, str(tmp_path / "checkpoints"))

    first = begun()
    list(first.rows())
    assert first.scaler.get_scale() < 2.0**40
    assert begun().scaler.get_scale() == first.scaler.get_scale()


@pytest.mark.slow
def test_gauges_are_among_the_metrics_that_ray_exports(tmp_path: Path) -> None:
    trained(tmp_path, "train.loggers=[prometheus]")
    (node,) = ray.nodes()
    deadline = time.monotonic() + 60
    while True:
        page = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics").text
        found = [line for line in page.splitlines() if line.startswith("ray_llmray_train_loss{")]
        if any(f'run="{tmp_path}"' in line for line in found):
            break
        assert time.monotonic() < deadline, found
        time.sleep(1)
