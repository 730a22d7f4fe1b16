"""A run that is interrupted ends with 130, leaves no process behind, and goes on when asked again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOB = [
    *("task={name: causal_lm, seq_len: 32}", "model.from=new:gpt2-tiny", "scale.workers=2"),
    *("data.train=builtin:shapes?rows=400", "data.tokenizer={vocab_size: 400, sample_rows: 200}"),
    *("train={steps: 300, batch_size: 8, log_every: 1}",),
]


def started(output: Path) -> subprocess.Popen[str]:
    """`llmray train` on two workers, in a session of its own."""
    words = [sys.executable, "-m", "llmray", "train", *JOB, f"output={output}"]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_a_step(output: Path, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not (output / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left_over(session: int) -> str:
    return subprocess.run(["ps", "-o", "pid=,args=", "-s", str(session)], capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=["terminated", "ctrl-c twice"]
)
def test_two_workers_are_interrupted_and_the_run_goes_on(signals: list[signal.Signals], tmp_path: Path) -> None:
    run = started(tmp_path)
    wait_for_a_step(tmp_path)
    for number in signals:
        run.send_signal(number)
        time.sleep(0.3)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 130, told
    assert "Traceback" not in told
    assert left_over(run.pid) == ""
    assert not (tmp_path / "result.json").exists()

    again = started(tmp_path)
    out, told = again.communicate(timeout=200)
    assert again.returncode == 0, told
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 300
