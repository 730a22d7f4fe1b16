"""Whatever is interrupted, and however often, ends with 130, leaves no process behind, and goes on when asked again."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

JOB = [
    *("task={name: causal_lm, seq_len: 32}", "model.from=new:gpt2-tiny"),
    *("data.train=builtin:shapes?rows=400", "data.tokenizer={vocab_size: 400, sample_rows: 200}"),
]
LONG = [*JOB, "train={steps: 200, batch_size: 8, log_every: 1}", "scale.workers=2"]
SEARCH = [
    *(*JOB, "train={steps: 4000, batch_size: 8, eval_every: 20}", "data.eval=builtin:shapes?rows=16&split=eval"),
    "tune={space: {train.learning_rate: [1e-3, 2e-3, 3e-3, 4e-3]}, trials: 4, grace_steps: 2000}",
]
TERMINATED, TWICE = [signal.SIGTERM], [signal.SIGINT] * 2


def told(output: Path) -> list[int]:
    """The steps of which there is a row."""
    if not (output / "metrics.jsonl").exists():
        return []
    lines = (output / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


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
        while len(told(output)) < step:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.002)

    def interrupt(self, signals: list[signal.Signals]) -> int:
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.3)
        return self.process.wait(120)

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


@pytest.mark.slow
def test_two_workers_are_interrupted_and_what_is_printed_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with running(tmp_path / "said", "train", *LONG, f"output={output}") as run:
        run.wait_for_step(output, 3)
        assert run.interrupt(TWICE) == 130, run.text()
        assert "Traceback" not in run.text()
        assert f"llmray train {output}/job.yaml" in run.text()
        assert run.left_over() == ""
    assert not (output / "result.json").exists()
    with running(tmp_path / "again", "train", f"{output}/job.yaml") as run:
        assert run.process.wait(300) == 0, run.text()
    steps = told(output)
    assert steps == sorted(set(steps))
    assert steps[-1] == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "moment", "signals"),
    [
        (["tune", *SEARCH], "trials ", TWICE),
        (["demo"], "train writer …", TWICE),
        (["demo"], "train writer: preparing", TERMINATED),
        (["serve", "model.from=nowhere/model", "task=qa"], "serve …", TWICE),
    ],
    ids=["tune", "demo, training", "demo, early", "serve"],
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
