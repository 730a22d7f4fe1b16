"""Ray Train end to end: stream, learn, die, resume, refuse."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from ray._private.state import actors
from ray.train.v2._internal.execution.controller import TrainController
from transformers import AutoTokenizer

from llmray.job.errors import DataError, InterruptedWorkError, JobError, StoreError
from llmray.job.load import dump, load
from llmray.job.schema import Job
from llmray.store import journal
from llmray.store.journal import Progress
from llmray.stream.prepare import prepare
from llmray.training.loop import DivergedError
from llmray.training.plan import needs_ray, plan
from llmray.training.run import train

pytestmark = pytest.mark.usefixtures("ray_cluster")


SHAPES = Path(__file__).with_name("shapes.yaml")


def job_of(output: Path, *overrides: str) -> Job:
    train = "train={steps: 60, batch_size: 16, learning_rate: 3e-3, checkpoint_every: 10, eval_every: 30}"
    return load(SHAPES, [train, "scale.workers=2", f"output={output}", *overrides])


HERE = ("scale.workers=1", "scale.max_failures=0")
"""One worker that nobody starts again trains in this process: tests of what the workers do not change take it."""


@pytest.fixture(scope="module")
def unbroken(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two workers that nothing disturbed."""
    output = tmp_path_factory.mktemp("unbroken")
    train(job_of(output), Progress.silent())
    return output


def logged(output: Path, key: str) -> dict[int, float]:
    """Step → value, from `metrics.jsonl`."""
    rows = [row for row in journal.read(str(output / "metrics.jsonl")) if key in row]
    found = {int(str(row["step"])): float(str(row[key])) for row in rows}
    assert len(found) == len(rows), "a step was told twice"
    return found


def weights(output: Path) -> bytes:
    return (output / "model" / "model.safetensors").read_bytes()


@contextmanager
def meanwhile(act: Callable[[], bool]) -> Iterator[threading.Event]:
    """Try `act` in a thread until it says that it is done."""
    done, ended = threading.Event(), threading.Event()

    def run() -> None:
        while not ended.is_set() and not done.is_set():
            if act():
                done.set()
            time.sleep(0.02)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield done
    ended.set()
    thread.join()


def at_work() -> set[int]:
    """Processes of this session's Ray Train workers."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker") and ours(int(folder.name)):
                found.add(int(folder.name))
    return found


def kill_a_worker(output: Path) -> bool:
    """SIGKILL one worker, once a checkpoint is there to resume from."""
    if not list(output.glob("checkpoints/step-*/manifest.json")):
        return False
    for process in at_work():
        os.kill(process, signal.SIGKILL)
        return True
    return False


class Killing(Progress):
    """SIGKILL of one of a run's workers, drawn from a seed, each time that a step is told which was drawn from it, too;
    after a kill only of workers that were started anew."""

    def __init__(self, seed: int, kills: int, before: int) -> None:
        super().__init__(quiet=True)
        self.draw = random.Random(seed)
        self.steps = sorted(self.draw.sample(range(1, before), kills))
        self.known = set[int]()

    def update(self, label: str, step: int, **metrics: object) -> None:
        fresh = at_work() - self.known if self.steps and step >= self.steps[0] else None
        if fresh:
            os.kill(self.draw.choice(sorted(fresh)), signal.SIGKILL)
            self.known |= fresh
            del self.steps[0]


def interrupted(job: Job, rows: int) -> None:
    """Train until so many more rows are told, then Ctrl-C."""
    path = f"{job.output}/metrics.jsonl"
    before = len(journal.read(path))

    def interrupt() -> bool:
        if len(journal.read(path)) < before + rows:
            return False
        os.kill(os.getpid(), signal.SIGINT)
        return True

    with meanwhile(interrupt), pytest.raises(InterruptedWorkError, match="the same command goes on"):
        train(job, Progress.silent())


def ours(pid: int) -> bool:
    """Whether a process descends from this one: other clusters may run on the machine."""
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


def test_two_workers_stream_and_learn(unbroken: Path) -> None:
    losses, held_out = logged(unbroken, "loss"), logged(unbroken, "eval_loss")
    assert list(losses) == [10, 20, 30, 40, 50, 60]
    assert losses[60] < 0.7 * losses[10]
    assert list(held_out) == [30, 60]
    assert held_out[60] < held_out[30]
    assert {path.name for path in unbroken.iterdir()} >= {"job.yaml", "metrics.jsonl", "checkpoints", "model"}
    assert [path.name for path in sorted(unbroken.glob("checkpoints/*"))] == ["step-00000050", "step-00000060"]
    assert load(unbroken / "job.yaml") == job_of(unbroken)
    descent = json.loads((unbroken / "model" / "lineage.json").read_text())
    assert (descent["step"], descent["rows"], descent["job"]["train"]["steps"]) == (60, 60 * 16, 60)


def test_the_same_command_again_does_nothing(unbroken: Path) -> None:
    before = weights(unbroken)
    began = time.monotonic()
    result = train(job_of(unbroken), Progress.silent())
    assert time.monotonic() - began < 1
    assert result.steps == 60
    assert result.metrics["eval_loss"] == logged(unbroken, "eval_loss")[60]
    assert weights(unbroken) == before


def test_another_job_is_kept_out_of_the_folder(unbroken: Path) -> None:
    with pytest.raises(StoreError, match=r"train\.steps: 60 there, 70 in this job"):
        train(job_of(unbroken, "train.steps=70"), Progress.silent())


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(unbroken: Path, tmp_path: Path) -> None:
    """After SIGKILL the run resumes by itself and ends with the very weights of the undisturbed run."""
    with meanwhile(lambda: kill_a_worker(tmp_path)) as killed:
        result = train(job_of(tmp_path), Progress.silent())
    assert killed.is_set()
    assert result.steps == 60
    assert logged(tmp_path, "loss") == logged(unbroken, "loss")
    assert logged(tmp_path, "eval_loss") == logged(unbroken, "eval_loss")
    assert weights(tmp_path) == weights(unbroken)


@pytest.mark.slow
def test_divergence_ends_the_run_at_once_in_words(tmp_path: Path) -> None:
    """A worker's own error comes back as it is, and nobody starts the worker again to hear it three more times."""
    job = job_of(tmp_path, "scale.workers=1", "train.learning_rate=1e30", "train.log_every=1", "data.eval=[]")
    with pytest.raises(DivergedError, match=r"^training diverged: at step \d+ .*train\.learning_rate"):
        train(job, Progress.silent())
    assert not list(tmp_path.glob("result.json"))


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Stopped in the middle and run again, a run ends as one that was left alone."""
    interrupted(job_of(tmp_path / "cut", *HERE), 3)
    train(job_of(tmp_path / "cut", *HERE), Progress.silent())
    train(job_of(tmp_path / "whole", *HERE), Progress.silent())
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.fixture(scope="module")
def store(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared store of some 500 rows."""
    output = tmp_path_factory.mktemp("store")
    prepare(job_of(output), Progress.silent())
    return output


def stored(store: Path, *overrides: str) -> tuple[str, ...]:
    """A job that learns from a store in a shuffled order and tells the loss of each step."""
    return (f"data.train={store}", "data.eval=[]", "data.shuffle_rows=1000", "train.log_every=1", *overrides)


def test_what_lies_ready_needs_no_ray(store: Path, tmp_path: Path) -> None:
    """From a store, in its own process, a run would not notice if Ray could not start."""
    ready = job_of(tmp_path, *HERE, f"data.train={store}", "data.eval=[]", "train={steps: 2, batch_size: 8}")
    assert not needs_ray(ready)
    for more in ("scale.max_failures=1", "data.eval=builtin:shapes?rows=8", "train.loggers=[prometheus]"):
        assert needs_ray(job_of(tmp_path, *HERE, f"data.train={store}", "data.eval=[]", more))
    (tmp_path / "ready.yaml").write_text(dump(ready))
    code = f"import llmray, ray; ray.init = None; print(llmray.train({str(tmp_path / 'ready.yaml')!r}).steps)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.stdout.strip().endswith("2"), told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kills", "more"),
    [(0, 4, ()), (1, 3, ("train.accumulate=2",)), (2, 3, ("train.optimizer=muon", "train.checkpoint_every=7"))],
)
def test_ten_kills_lose_and_repeat_no_row(
    seed: int, kills: int, more: tuple[str, ...], store: Path, tmp_path: Path
) -> None:
    """Killed at steps drawn from three seeds, runs over stored rows have the losses of those that were left alone."""
    keys = ("train.steps=160", "train.checkpoint_every=4", "scale.max_failures=5", f"train.seed={seed}", *more)
    told, killing = stored(store, *keys), Killing(seed, kills, before=120)
    train(job_of(tmp_path / "cut", *told), killing)
    assert not killing.steps
    train(job_of(tmp_path / "whole", *told), Progress.silent())
    assert list(logged(tmp_path / "cut", "loss")) == list(range(1, 161))
    assert logged(tmp_path / "cut", "loss") == logged(tmp_path / "whole", "loss")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_stored_corpus_is_learned_from_in_one_order_by_any_number_of_workers(store: Path, tmp_path: Path) -> None:
    """Two workers are stopped, three go on and are stopped, one ends it: losses are those of one that did it all."""
    told = stored(store, "train.steps=200", "train.batch_size=12", "train.precision=fp32")
    interrupted(job_of(tmp_path / "cut", *told), 5)
    interrupted(job_of(tmp_path / "cut", *told, "scale.workers=3"), 5)
    train(job_of(tmp_path / "cut", *told, *HERE), Progress.silent())
    train(job_of(tmp_path / "whole", *told, *HERE), Progress.silent())
    cut, whole = logged(tmp_path / "cut", "loss"), logged(tmp_path / "whole", "loss")
    assert list(cut) == list(range(1, 201))
    assert cut == pytest.approx(whole, rel=1e-3)


def test_epochs_of_a_store_are_whole(store: Path, tmp_path: Path) -> None:
    """No row is dropped at the end of a pass: the batches of two run across it."""
    rows = sum(file["rows"] for file in json.loads((store / "manifest.json").read_text())["shards"])
    work, _ = plan(job_of(tmp_path, *HERE, f"data.train={store}", "train.steps=null", "train.epochs=2"))
    assert work.total_steps == 2 * rows // 16


def test_epochs_are_counted_in_whole_batches(tmp_path: Path) -> None:
    """The eval rows as corpus: one pass is its rows over the batch size, rounded down."""
    job = job_of(tmp_path, *HERE, "train.steps=null", "train.epochs=2", "train.batch_size=8", "train.accumulate=2")
    work, datasets = plan(job)
    assert work.total_steps == 2 * (datasets["train"].count() // 4) // 2


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("data.train=[]", JobError, r"data\.train"),
        ("task=null", JobError, "task"),
        ("model=null", JobError, r"model\.from"),
        ("train.steps=null", JobError, r"train\.steps or train\.epochs"),
        ("train.warmup_steps=60", JobError, r"train\.warmup_steps \(60\) must be below the run's 60 steps"),
        ("model.from=new:no-such-preset", JobError, "preset"),
        ("data.train=nowhere.jsonl", DataError, r"nowhere\.jsonl"),
        ("data.train=builtin:shapes?rows=2", DataError, "batch"),
        ("scale={workers: 2, min_workers: 1}", JobError, r"builtin:shapes.* is streamed.*llmray prepare"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, override: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(job_of(tmp_path, *HERE, override), Progress.silent())
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.seq_len=4096", r"task\.seq_len: 4096 tokens, but the model .* has \d+ positions"),
        ("model.tokenizer={}/large", r"model\.tokenizer: .* has \d+ tokens, but the model .* knows \d+"),
    ],
)
def test_inputs_must_fit_the_model(unbroken: Path, tmp_path: Path, override: str, message: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(unbroken / "model")
    tokenizer.add_tokens([f"word{i}" for i in range(500)])
    tokenizer.save_pretrained(tmp_path / "large")
    job = job_of(tmp_path / "run", *HERE, f"model.from={unbroken / 'model'}", override.format(tmp_path))
    with pytest.raises(JobError, match=message):
        train(job, Progress.silent())


class LeftAtTheFirstStep(Progress):
    """What the second Ctrl-C raises."""

    def update(self, label: str, step: int, **metrics: object) -> None:
        raise KeyboardInterrupt


def test_of_a_run_that_is_left_nothing_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(job_of(tmp_path / "run", "train.steps=100000"), LeftAtTheFirstStep(quiet=True))
    at_work = [actor for actor in actors().values() if actor["ActorClassName"] == TrainController.__name__]
    assert at_work
    assert {actor["State"] for actor in at_work} == {"DEAD"}
