"""The command line keeps its promises: exit codes, where output goes, and a help that answers at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster import spec
from llmray.job.load import load

ROOT = Path(__file__).resolve().parents[2]


def llmray(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "llmray", *words], capture_output=True, text=True, timeout=timeout)


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom llmray.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "print([m for m in ('ray', 'torch', 'transformers', 'gradio', 'pyarrow', 'datasets') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train", "no.yaml"], "no.yaml: no such job file"),
        (["train", "task=qa"], "model.from: this verb needs it"),
        (["train", "task=qa", "model.from=new:bert-tiny"], "data.train: this verb needs it"),
        (["train", "trian.steps=3"], "did you mean 'train'?"),
        (["tune", "task=qa", "model.from=a", "data.train=b"], "tune: this verb needs it"),
        (["train", "a.yaml", "b.yaml"], "one job file at a time"),
        (["nosuch"], "invalid choice"),
        (["export", "model", "--to", "onnx", "task=qa"], "data.eval: this verb needs it"),
        (["export", "model", "--to", "onnx", "--int8", "no.yaml", "task=qa"], "no.yaml: no such job file"),
        (["export", "model", "--to", "onnx", "--nosuch"], "unrecognized arguments: --nosuch"),
        (["models", "list", "--json", "extra"], "unrecognized arguments: extra"),
        (["serve", "serve.endpoints=[{model: m, task: qa, engine: onnx, gpus: 1}]"], "onnx runs on CPUs; remove gpus"),
    ],
)
def test_wrong_arguments_exit_2_and_start_nothing(words, complaint):
    done = llmray(*words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_a_run_that_diverged_says_so_and_no_more(tmp_path):
    """What still streamed to it has ended before its Ray does."""
    corpus = "data={train: 'builtin:shapes?rows=400', tokenizer: {vocab_size: 400, sample_rows: 200}}"
    steps = "train={steps: 4, batch_size: 8, log_every: 1, max_loss: 3}"
    here = ["scale={workers: 1, max_failures: 0}", f"output={tmp_path / 'out'}"]
    done = llmray(
        "train", "task={name: causal_lm, seq_len: 32}", "model.from=new:gpt2-tiny", corpus, steps, *here, timeout=120
    )
    assert done.returncode == 1
    assert "is above train.max_loss (3)" in done.stderr
    assert "Traceback" not in done.stderr


def test_schema_is_json_schema_and_the_manual_is_true():
    assert json.loads(llmray("schema").stdout)["properties"]["train"]
    assert llmray("schema", "--markdown").stdout == (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_job_or_a_cluster(path):
    assert spec.load(path).name if path.parent.name == "clusters" else load(path).output
    assert yaml.safe_load(path.read_text())


def test_models_list_is_empty_json(tmp_path):
    done = llmray("models", "list", "--output", str(tmp_path), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"versions": []})


def test_a_key_is_told_once_and_revoked_by_its_id(tmp_path):
    job = f"output={tmp_path}"
    made = json.loads(llmray("keys", "create", "ana", job, "--json").stdout)
    assert "llmray-" in llmray("keys", "create", "ben", job).stdout
    assert json.loads(llmray("keys", "revoke", made["id"], job, "--json").stdout)["revoked"]
    listed = llmray("keys", "list", job, "--json").stdout
    assert [(key["name"], bool(key["revoked"])) for key in json.loads(listed)["keys"]] == [
        ("ana", True),
        ("ben", False),
    ]
    assert made["key"] not in listed
    unknown = llmray("keys", "revoke", "none", job)
    assert (unknown.returncode, "holds no key 'none'" in unknown.stderr) == (1, True)


def test_work_that_fails_exits_1(tmp_path):
    done = llmray("models", "register", "qa", str(tmp_path), "--output", str(tmp_path))
    assert done.returncode == 1
    assert "no model to register there" in done.stderr
