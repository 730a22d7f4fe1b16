"""Seconds from a command to the end of its first training step, as a Markdown table.

    python benchmarks/startup.py [--runs 5] [--only local ...]

`llmray train` with one Ray worker, and in its own process (`scale.max_failures=0`), from text and from a store; beside
them a plain Python program with the same imports of torch and transformers, that builds the same model from the same
tokenizer and takes a step on the same blocks.  Runs are interleaved; the first round, which warms the disk, is not
counted.  Some 5 minutes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

JOB = (
    *("task={name: causal_lm, seq_len: 64}", "model.from=new:gpt2-tiny", "data.train=builtin:shapes?rows=600"),
    *("data.tokenizer={vocab_size: 400, sample_rows: 200}", "train={steps: 2, batch_size: 16, log_every: 1}"),
)
PLAIN = """
import sys, torch, pyarrow.parquet
from pathlib import Path
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
store = Path(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(store / "tokenizer")
model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=128, n_layer=2, n_head=4, n_positions=128))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
blocks = pyarrow.parquet.read_table(next((store / "blocks").iterdir()))["input_ids"].to_pylist()
ids = torch.tensor([block for block in blocks if len(block) == 64][:16])
model(input_ids=ids, labels=ids).loss.backward()
optimizer.step()
print("stepped", flush=True)
"""
WAYS = {
    "worker": ("llmray, one Ray worker, from text", ()),
    "stream": ("llmray, in its own process, from text", ("scale.max_failures=0",)),
    "local": ("llmray, in its own process, from a store", ("scale.max_failures=0", "data.train=STORE")),
    "plain": ("plain Python, from the store's files", ()),
}


def llmray(verb: str, output: Path, overrides: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "llmray", verb, *JOB, *overrides, f"output={output}"]


def plain_s(store: Path) -> float:
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", PLAIN, store], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = process.stdout.readline()
        seconds = time.monotonic() - began
    if told.strip() != "stepped":
        raise SystemExit("the plain program failed")
    return seconds


def llmray_s(output: Path, overrides: Sequence[str]) -> float:
    """Until the first row is in `metrics.jsonl`."""
    began, metrics = time.monotonic(), output / "metrics.jsonl"
    with subprocess.Popen(llmray("train", output, overrides), stdout=subprocess.DEVNULL) as process:
        while not has_step(metrics):
            if process.poll():
                raise SystemExit(f"{' '.join(map(str, process.args))}: ended with exit code {process.returncode}")
            time.sleep(0.005)
        return time.monotonic() - began


def has_step(metrics: Path) -> bool:
    return metrics.exists() and any("step" in json.loads(line) for line in whole_lines(metrics.read_text()))


def whole_lines(text: str) -> list[str]:
    return text.split("\n")[:-1]


def main(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch, "store")
        subprocess.run(llmray("prepare", store, ()), check=True, stdout=subprocess.DEVNULL)
        found: dict[str, list[float]] = {name: [] for name in asked.only or WAYS}
        for turn in range(asked.runs + 1):
            for name, seconds in found.items():
                overrides = [word.replace("STORE", str(store)) for word in WAYS[name][1]]
                output = Path(scratch, f"{name}-{turn}")
                seconds.append(plain_s(store) if name == "plain" else llmray_s(output, overrides))
    print("| command | seconds to the first step, median | least |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {WAYS[name][0]} | {statistics.median(seconds[1:]):.2f} | {min(seconds[1:]):.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WAYS)
    main(parser.parse_args())
