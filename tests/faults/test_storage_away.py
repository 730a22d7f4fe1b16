"""All of a run lies in an object store, which goes away for 30 s; later the run is killed, and goes on from there."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmray.store import place

RUN = "s3://bucket/run"
JOB = [
    *("task={name: causal_lm, seq_len: 32}", "model.from=new:gpt2-tiny", "data.train=s3://bucket/corpus/*.jsonl"),
    *("data.tokenizer={vocab_size: 400}", "scale={workers: 1, max_failures: 0}"),
    "train={steps: 600, batch_size: 8, log_every: 20, checkpoint_every: 20, keep_checkpoints: 3}",
]
AWAY_S = 30


def started(output: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "llmray", "train", *JOB, f"output={output}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ended(run: subprocess.Popen[str]) -> str:
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said
    return said


def saved() -> int:
    """The newest step of which a whole checkpoint is there."""
    steps = place.listdir(f"{RUN}/checkpoints")
    whole = [step for step in steps if "manifest.json" in place.listdir(f"{RUN}/checkpoints/{step}")]
    return max((int(step.rpartition("-")[2]) for step in whole), default=0)


def until(true: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def losses(run: str) -> dict[int, float]:
    rows = [json.loads(line) for line in place.read_text(f"{run}/metrics.jsonl").splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.mark.slow
def test_a_run_outlives_its_storage_s_outage_and_its_own_death(object_store: Any, tmp_path: Path) -> None:
    texts = [f"document {row} " + " ".join(f"w{row % 7 + k}" for k in range(40)) for row in range(400)]
    place.write_text("s3://bucket/corpus/a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    run = started(RUN)
    until(lambda: saved() > 0, run)
    object_store.away = True
    time.sleep(AWAY_S)
    assert run.poll() is None, run.communicate()[1]
    object_store.away = False
    before = saved()
    until(lambda: saved() > before, run)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(60)
    before = saved()
    said = ended(started(RUN))
    assert f"resumed at step {before}" in said
    ended(started(str(tmp_path / "whole")))
    assert losses(RUN) == losses(str(tmp_path / "whole"))
    weights = [Path(place.local_copy(f"{folder}/model"), "model.safetensors") for folder in (RUN, tmp_path / "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
