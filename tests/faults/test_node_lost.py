"""One of two machines dies in the middle of an epoch: the run goes on with one worker, and every block is seen once.

It dies without a word, or after a notice such as clouds give of a machine that they take back.  Where nobody may go on,
the run ends, and says what was lost.
"""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("clusters")

PROGRAM = """
import copy, json, os, sys, threading, time
from dataclasses import replace
from pathlib import Path
import ray, ray.train, torch
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
from llmray.job.errors import LlmrayError
from llmray.job.load import load
from llmray.store import journal
from llmray.store.journal import Progress
from llmray.stream.feed import Feed
from llmray.stream.prepare import prepare
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.training import run
from cluster.session import session

folder, notice, goes_on = Path(sys.argv[1]), sys.argv[2] == "notice", sys.argv[2] != "the end"
told = folder / "told"
told.mkdir()

class Overheard(CausalLanguageModel):
    # writes down what each worker learns from, a line a step
    def collate(self, features):
        if not torch.is_grad_enabled():  # held out
            return super().collate(features)
        if not hasattr(self, "file"):
            context = ray.train.get_context()
            node = ray.get_runtime_context().get_node_id()
            self.file = (told / f"{time.time()}-{os.getpid()}.jsonl").open("w", buffering=1)
            seat = {"rank": context.get_world_rank(), "world": context.get_world_size(), "node": node}
            self.file.write(json.dumps(seat) + "\\n")
        self.file.write(json.dumps([list(map(int, ids)) for ids in features["input_ids"]]) + "\\n")
        time.sleep(0.3 if notice else 0.05)
        return super().collate(features)

def overheard(job, *, resumed=False):
    global portions
    work, datasets = plan(job, resumed=resumed)
    task, portions = copy.copy(work.task), work.portions
    task.__class__ = Overheard
    return replace(work, task=task), datasets

plan, run.plan = run.plan, overheard
machine = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args=machine | {"include_dashboard": True, "dashboard_port": 0})
other = cluster.add_node(**machine)
output = folder / "run"
words = ["task={name: causal_lm, seq_len: 32}", "model.from=new:gpt2-tiny", f"scale.address={cluster.address}"]

def kill():
    while len(journal.read(str(output / "metrics.jsonl"))) < 12:
        time.sleep(0.1)
    if notice:  # a minute before, as of a spot machine; then it is taken away as soon as there is a checkpoint
        word = (DRAIN_NODE_REASON_PREEMPTION, "spot", int(time.time() * 1000) + 60_000)
        assert GcsClient(address=cluster.address).drain_node(other.node_id, *word)[0]
        while not list(output.glob("checkpoints/*/manifest.json")):
            time.sleep(0.1)
    cluster.remove_node(other, allow_graceful=False)

ray.init(address=cluster.address, _node_ip_address="127.0.0.2", log_to_driver=False)
try:
    with session(load(None).scale):
        source = ["data.train=builtin:shapes?rows=300", "data.tokenizer={vocab_size: 400, sample_rows: 200}"]
        store = folder / "store"
        blocks = prepare(load(None, [*words, *source, f"output={store}"]), Progress.silent()).rows
        steps = -(-blocks // 8)
        train = f"train={{steps: {steps}, batch_size: 8, log_every: 1, eval_every: 20}}"
        saves = "train.checkpoint_every=" + ("null" if notice else "5")
        scale = ["scale.workers=2", "scale.min_workers=1" if goes_on else "scale.max_failures=0"]
        held_out = "data.eval=builtin:shapes?rows=40&split=eval"
        data = [f"data.train={store}", "data.shuffle_rows=1000", held_out]
        job = load(None, [*words, train, saves, *scale, *data, f"output={output}"])
        threading.Thread(target=kill, daemon=True).start()
        try:
            result = run.train(job, Progress(sys.stderr))
        except LlmrayError as error:
            assert not goes_on
            sys.exit(str(error))
        epoch = Feed(portions, blocks, shuffle=False, stop=blocks)
        rows = [list(map(int, ids)) for batch in epoch for ids in batch["input_ids"]]
        nodes = {"lost": other.node_id, "kept": cluster.head_node.node_id}
        print(json.dumps({"steps": result.steps, "blocks": rows, **nodes}))
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("warning", ["none", "notice"])
def test_training_goes_on_with_fewer_workers_and_every_block_is_seen_once(
    tmp_path: Path, plain_python: Path, warning: str
) -> None:
    words = [str(plain_python), "-c", PROGRAM, str(tmp_path), warning]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("{")))
    seats = [[json.loads(line) for line in path.open()] for path in sorted((tmp_path / "told").iterdir())]
    before, after = ([seat for seat in seats if seat[0]["world"] == world] for world in (2, 1))
    first, second = sorted(before, key=lambda seat: seat[0]["rank"])
    (alone,) = after
    assert {first[0]["node"], second[0]["node"]} == {result["lost"], result["kept"]}
    assert alone[0]["node"] == result["kept"]
    resumed = result["steps"] - len(alone[1:])
    assert 0 < resumed < result["steps"]
    assert f"resumed at step {resumed} with 1 of 2 workers" in run.stderr
    assert (f"about to be taken away; saving step {resumed}" in run.stderr) == (warning == "notice")
    kept: list[Any] = [row for one, other in zip(first[1:], second[1:], strict=False) for row in one + other]
    learned = [*kept[: 8 * resumed], *(row for batch in alone[1:] for row in batch)]
    blocks = len(result["blocks"])
    assert Counter(map(tuple, learned[:blocks])) == Counter(map(tuple, result["blocks"]))
    rows = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open())
    assert [row["step"] for row in rows if "eval_loss" in row] == [20, 40, 60, result["steps"]]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_that_may_not_go_on_says_that_a_node_was_lost(tmp_path: Path, plain_python: Path) -> None:
    words = [str(plain_python), "-c", PROGRAM, str(tmp_path), "the end"]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    told = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert told["message"] in run.stderr
    assert re.search("lost with its node|whose node is gone", told["message"])
    assert told["kind"] == "node lost"
    assert list((tmp_path / "run").glob("checkpoints/*/manifest.json"))
