"""Seconds from a command to the end of its first training step, as a Markdown table.

    python benchmarks/startup.py [--runs 5] [--only local ...]

`llmray train` with one Ray worker, and in its own process (`scale.max_failures=0`), from text and from a store.  Beside
them a plain program with the same imports of torch and transformers, that builds the same model from the same tokenizer
and takes a step on the same blocks: in its own process, and in a worker of Ray Train's `TorchTrainer`.  Runs are
interleaved; the first round, which warms the disk, is not counted.  Some 10 minutes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

JOB = (
    *("task={name: causal_lm, seq_len: 64}", "model.from=new:gpt2-tiny", "data.train=builtin:shapes?rows=600"),
    *("data.tokenizer={vocab_size: 400, sample_rows: 200}", "train={steps: 2, batch_size: 16, log_every: 1}"),
)
STEP = """
import sys, torch, pyarrow.parquet
from pathlib import Path
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
def step(store, stepped):
    tokenizer = AutoTokenizer.from_pretrained(store / "tokenizer")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=128, n_layer=2, n_head=4, n_positions=128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    blocks = pyarrow.parquet.read_table(next((store / "blocks").iterdir()))["input_ids"].to_pylist()
    ids = torch.tensor([block for block in blocks if len(block) == 64][:16])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    stepped.touch()
"""
PLAIN = STEP + "step(Path(sys.argv[1]), Path(sys.argv[2]))"
RAY_TRAIN = f"""
import sys, ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
def learn(places):
    found = {{}}
    exec({STEP!r}, found)
    found["step"](*map(found["Path"], places["all"]))
ray.init(address="local", num_cpus=4, _node_ip_address="127.0.0.1", log_to_driver=False)
kept = RunConfig(storage_path=sys.argv[2] + "-run")
TorchTrainer(
    learn, train_loop_config={{"all": sys.argv[1:3]}}, scaling_config=ScalingConfig(num_workers=1), run_config=kept
).fit()
"""
WAYS = {
    "worker": ("llmray, one Ray worker, from text", ()),
    "stored": ("llmray, one Ray worker, from a store", ("data.train=STORE",)),
    "ray": ("Ray Train alone, one worker, from the store's files", RAY_TRAIN),
    "stream": ("llmray, in its own process, from text", ("scale.max_failures=0",)),
    "local": ("llmray, in its own process, from a store", ("scale.max_failures=0", "data.train=STORE")),
    "plain": ("plain Python, from the store's files", PLAIN),
}


def llmray(verb: str, output: Path, overrides: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "llmray", verb, *JOB, *overrides, f"output={output}"]


def seconds(way: str, store: Path, output: Path) -> float:
    """Until the first step's row is in `metrics.jsonl`, or the plain program has said that it took a step."""
    _, how = WAYS[way]
    if isinstance(how, str):
        return _until(output.exists, [sys.executable, "-c", how, str(store), str(output)])
    overrides = [word.replace("STORE", str(store)) for word in how]
    return _until(lambda: has_step(output / "metrics.jsonl"), llmray("train", output, overrides))


def _until(stepped: Callable[[], bool], command: Sequence[str]) -> float:
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not stepped():
            if process.poll() is not None and not stepped():
                raise SystemExit(f"{' '.join(command)}: ended with exit code {process.returncode} before a step")
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
            for name, taken in found.items():
                taken.append(seconds(name, store, Path(scratch, f"{name}-{turn}")))
    print("| command | seconds to the first step, median | least |\n|---|---|---|")
    for name, taken in found.items():
        print(f"| {WAYS[name][0]} | {statistics.median(taken[1:]):.2f} | {min(taken[1:]):.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WAYS)
    main(parser.parse_args())
