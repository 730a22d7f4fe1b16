"""A corpus four times the object store streams through it and through `prepare`: nothing spills, memory is flat."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STORE_BYTES = 80 << 20
"""Little more than the least that Ray takes."""

PROGRAM = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
import psutil, ray
from ray._private.internal_api import memory_summary
from ray.data import ExecutionResources
import llmray
from llmray.corpus.record import Document
from llmray.job.load import load
from llmray.stream.batches import batches
from llmray.stream.datasets import features, train_tokenizer
from llmray.tasks import make
from llmray.tasks.base import Processor

corpus, output, store_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = ray.init(
    address="local", num_cpus=1, object_store_memory=store_bytes, _node_ip_address="127.0.0.1", log_to_driver=False
)
data = {"train": corpus, "tokenizer": {"vocab_size": 1000, "sample_rows": 500}}
job = load({"task": {"name": "causal_lm", "seq_len": 256}, "data": data, "output": output})
task = make(job.task, Processor(train_tokenizer(job.data.train, Document, job.data.tokenizer)))

def held():
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(process.memory_full_info().uss for process in family)

rows, held_bytes, tokens = features(job.data.train, task), [], 0
rows.context.execution_options.resource_limits = ExecutionResources(cpu=1)  # as in training without workers
for number, batch in enumerate(batches(rows.iterator(), task, 64, epochs=1)):
    tokens += batch["input_ids"].numel()
    if number % 250 == 0:
        held_bytes.append(held())
with ThreadPoolExecutor(1) as pool:
    work, preparing = pool.submit(llmray.prepare, job), []
    while not work.done():
        preparing.append(held())
        time.sleep(0.25)
told = {"tokens": tokens, "prepared": work.result().tokens, "held": [held_bytes, preparing]}
print(json.dumps(told | {"stats": memory_summary(context.address_info["address"], stats_only=True)}))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    lines = "".join(
        json.dumps({"text": " ".join(f"w{row * k % 997}" for k in range(200))}) + "\n" for row in range(1000)
    )
    for number in range(4):
        with (tmp_path / f"{number}.jsonl").open("w") as file:
            file.writelines([lines] * (STORE_BYTES // len(lines) + 1))
    words = [str(tmp_path / "*.jsonl"), str(tmp_path / "out"), str(STORE_BYTES)]
    run = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["tokens"] == pytest.approx(told["prepared"], rel=0.02)
    assert 4 * told["tokens"] > 4 * STORE_BYTES / 3  # as 32-bit ids
    assert "Spilled" not in told["stats"]
    for held in told["held"]:
        third = len(held) // 3  # by then all processes are up
        assert max(held[2 * third :]) < 1.2 * max(held[third : 2 * third])
