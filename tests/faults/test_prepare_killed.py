"""`prepare` in an object store that fails, killed in its midst: the same command goes on, and the store is the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmray.store import place

FILES = 8
JOB = ["task={name: causal_lm, seq_len: 32, packing: documents}", "data.clean={}", "data.tokenizer={vocab_size: 400}"]


def started(source: str, output: str) -> subprocess.Popen[str]:
    words = ["prepare", *JOB, f"data.train={source}/*.jsonl", f"output={output}"]
    command = [sys.executable, "-m", "llmray", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ended(run: subprocess.Popen[str]) -> None:
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said


def fill(folder: str) -> None:
    for number in range(FILES):
        texts = [f"document {number} {row} " + " ".join(f"w{row + k}" for k in range(40)) for row in range(200)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        place.write_text(place.join(folder, f"{number:02}.jsonl"), lines)


def parts(store: str) -> dict[str, str]:
    folder = place.join(store, "parts")
    return {name: place.read_text(place.join(folder, name)) for name in place.listdir(folder)}


@pytest.mark.slow
def test_a_kill_costs_only_the_parts_that_were_at_work(object_store: Any, tmp_path: Path) -> None:
    fill("s3://bucket/corpus")
    fill(str(tmp_path / "corpus"))
    ended(started(str(tmp_path / "corpus"), str(tmp_path / "store")))
    unbroken = json.loads((tmp_path / "store" / "manifest.json").read_text())

    object_store.failures = 2
    run = started("s3://bucket/corpus", store := "s3://bucket/store")
    deadline = time.monotonic() + 300
    while not (done := parts(store)):
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    assert len(done) < FILES
    assert "manifest.json" not in place.listdir(store)
    ended(started("s3://bucket/corpus", store))
    assert {name: parts(store)[name] for name in done} == done
    manifest = json.loads(place.read_text(f"{store}/manifest.json"))
    assert manifest["shards"] == unbroken["shards"]
    assert [s["tally"] for s in manifest["sources"]] == [s["tally"] for s in unbroken["sources"]]
    assert min(object_store.asked.values()) > 1
