"""Whatever is interrupted, and however often, ends with 130, leaves no process behind, and goes on when asked again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

JOB = [
    *("task={name: causal_lm, seq_len: 32}", "model.from=new:gpt2-tiny"),
    *("data.train=builtin:shapes?rows=400", "data.tokenizer={vocab_size: 400, sample_rows: 200}"),
]
LONG = [*JOB, "train={steps: 300, batch_size: 8, log_every: 1}", "scale.workers=2"]
SEARCH = [
    *(*JOB, "train={steps: 4000, batch_size: 8, eval_every: 20}", "data.eval=builtin:shapes?rows=16&split=eval"),
    "tune={space: {train.learning_rate: [1e-3, 2e-3, 3e-3, 4e-3]}, trials: 4, grace_steps: 2000}",
]
ONCE, TWICE, TERMINATED = [signal.SIGINT], [signal.SIGINT] * 2, [signal.SIGTERM]


def losses(output: Path) -> list[tuple[int, float]]:
    """Step and loss, as exactly as they were written."""
    if not (output / "metrics.jsonl").exists():
        return []
    lines = (output / "metrics.jsonl").read_text().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(row["step"], row["loss"]) for row in found]


class Run:
    """`llmray WORDS` in a session of its own, and what it has said so far."""

    def __init__(self, said: Path, *words: str) -> None:
        self.said = said
        with said.open("w") as file:
            command = [sys.executable, "-m", "llmray", *words]
            self.process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def text(self) -> str:
        return self.said.read_text()

    def wait_for(self, words: str, within_s: float = 300) -> None:
        deadline = time.monotonic() + within_s
        while words not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def wait_for_step(self, output: Path, step: int, within_s: float = 300) -> None:
        deadline = time.monotonic() + within_s
        while len(losses(output)) < step:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.002)

    def interrupt(self, signals: list[signal.Signals]) -> int:
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.3)
        return self.process.wait(120)

    def kill(self) -> None:
        """What a power cut does: SIGKILL for the program and every process of Ray that it started."""
        for line in self._processes().splitlines():
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        self.process.wait(60)

    def left_over(self, within_s: float = 10) -> str:
        """Processes that are still there after a moment: Ray's end when they notice that their node has."""
        deadline = time.monotonic() + within_s
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _processes(self) -> str:
        command = ["ps", "-o", "pid=,args=", "-s", str(self.process.pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextmanager
def running(said: Path, *words: str) -> Iterator[Run]:
    run = Run(said, *words)
    try:
        yield run
    finally:
        run.process.kill()


def saved(output: Path) -> int:
    """The newest step of which there is a checkpoint."""
    steps = [path.parent.name for path in output.glob("checkpoints/step-*/manifest.json")]
    return max((int(step.removeprefix("step-")) for step in steps), default=0)


@pytest.mark.slow
def test_two_workers_are_interrupted_and_the_run_goes_on(tmp_path: Path) -> None:
    """By SIGTERM, by Ctrl-C, and by Ctrl-C twice; each time what is printed goes on, from the step that is named."""
    output, words = tmp_path / "run", [*LONG, f"output={tmp_path / 'run'}"]
    for signals in (TERMINATED, ONCE, TWICE):
        before = saved(output)
        with running(tmp_path / "said", "train", *words) as run:
            run.wait_for_step(output, 3 + max((step for step, _ in losses(output)), default=0))
            assert run.interrupt(signals) == 130, run.text()
            assert "Traceback" not in run.text()
            assert f"llmray train {output}/job.yaml" in run.text()
            assert run.left_over() == ""
            assert not before or f"resumed at step {before}\n" in run.text()
            if signals != TWICE:
                assert f"stopped after step {saved(output)};" in run.text()
                assert losses(output)[-1][0] == saved(output) > before
        assert not (output / "result.json").exists()
        words = [str(output / "job.yaml")]
    before = saved(output)
    with running(tmp_path / "again", "train", *words) as run:
        assert run.process.wait(300) == 0, run.text()
        assert f"resumed at step {before}\n" in run.text()
    steps = [row[0] for row in losses(output)]
    assert steps == list(range(1, 301))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "moment", "signals"),
    [
        (["tune", *SEARCH], "trials ", TWICE),
        (["demo"], "train writer …", TWICE),
        (["demo"], "train writer: preparing", ONCE),
        (["demo"], "train writer: preparing", TERMINATED),
        (["serve", "model.from=nowhere/model", "task=qa"], "serve …", TWICE),
    ],
    ids=["tune", "demo, training", "demo, early", "demo, terminated", "serve"],
)
def test_every_stage_can_be_left(words: list[str], moment: str, signals: list[signal.Signals], tmp_path: Path) -> None:
    output = tmp_path / "out"
    where = ["--output", str(output)] if words == ["demo"] else [f"output={output}"]
    with running(tmp_path / "said", *words, *where) as run:
        run.wait_for(moment)
        assert run.interrupt(signals) == 130, run.text()
        assert "Traceback" not in run.text()
        assert run.left_over() == ""


DROPPED = """
import signal, sys, time
from llmray import cli

class Last:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def work(args):
    Last()
    time.sleep(20)

cli._schema = work
sys.exit(cli.main(["schema"]))
"""


def test_an_interruption_that_falls_into_a_destructor_is_not_lost() -> None:
    """Python drops what is raised there."""
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=15)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_power_cut_changes_nothing_that_comes_out(tmp_path: Path) -> None:
    """Killed with all its processes at some step and run again: losses and weights are those of a run left alone."""
    job = [*JOB, "train={steps: 60, batch_size: 8, log_every: 1, checkpoint_every: 5}"]
    job += ["scale={workers: 1, max_failures: 0}"]
    with running(tmp_path / "said", "train", *job, f"output={tmp_path / 'whole'}") as run:
        assert run.process.wait(300) == 0, run.text()
    output, step = tmp_path / "cut", random.randrange(1, 60)
    with running(tmp_path / "killed", "train", *job, f"output={output}") as run:
        run.wait_for_step(output, step)
        run.kill()
    assert not (output / "result.json").exists()
    with running(tmp_path / "again", "train", *job, f"output={output}") as run:
        assert run.process.wait(300) == 0, run.text()
    assert len(losses(output)) == 60
    assert losses(output) == losses(tmp_path / "whole"), step
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (output, tmp_path / "whole")]
    assert weights[0] == weights[1], step
