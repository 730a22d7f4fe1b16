"""The same verb on a separate Ray cluster, through Ray Jobs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

from cluster import jobs
from llmray import verbs
from llmray.job.errors import ClusterError
from llmray.job.load import dump, load
from serve import keys
from serve.declared import config
from serve.environment import free_block

pytestmark = pytest.mark.xdist_group("clusters")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, head_ports, plain_python):
    """A head node of its own, started as a user would, that ends with its process group."""
    ports = head_ports()
    folder = tmp_path_factory.mktemp("head")
    command = [
        *(str(plain_python), "-m", "ray.scripts.scripts"), "start", "--head", "--block",
        "--num-cpus=4", "--dashboard-host=127.0.0.1", *(f"--{name}={port}" for name, port in ports.items()),
        "--disable-usage-stats",
    ]  # fmt: skip
    # Workers start `python`: the one of this environment.
    env = os.environ | {"PATH": f"{plain_python.parent}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
    with (folder / "log").open("w") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        until(lambda: answers(address, head, folder / "log"), 200, (folder / "log").read_text)
        yield address
    finally:
        head.terminate()
        try:
            head.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, 9)


def answers(address: str, head: subprocess.Popen, log: Path) -> bool:
    assert head.poll() is None, log.read_text()
    try:
        jobs.list_jobs(address)
    except ClusterError:
        return False
    return True


def until(true: Callable[[], bool], within_s: float = 120, said: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, said()
        time.sleep(0.5)


@pytest.mark.slow
def test_a_verb_runs_there_and_its_exit_code_comes_back(elsewhere, tmp_path):
    lines: list[str] = []
    job = load(
        {"task": {"name": "causal_lm", "seq_len": 32}, "data": {"train": "builtin:shapes?rows=200"}},
        [f"output={tmp_path}/s"],
    )
    identity, code = jobs.submit("prepare", job, elsewhere, on_line=lines.append)
    assert code == 0, lines
    assert (tmp_path / "s" / "manifest.json").exists()
    assert any("uploading" in line for line in lines)
    assert identity in [status.id for status in jobs.list_jobs(elsewhere).jobs]
    kept = (tmp_path / "s" / "logs" / f"{identity}.log").read_text()
    told: list[str] = []
    jobs.logs(elsewhere, identity, follow=False, on_line=told.append)
    assert any('"rows"' in line for line in told)
    assert '"rows"' in kept
    assert set(kept.splitlines()) <= set(told)

    bad = load(job, ["data.train=/no/such/file.jsonl", f"output={tmp_path}/t"])
    _, code = jobs.submit("prepare", bad, elsewhere, on_line=lines.append)
    assert code == 1
    assert any("/no/such/file.jsonl" in line for line in lines)


def test_a_job_is_stopped(elsewhere, tmp_path):
    job = load({"task": "causal_lm", "data": {"train": "builtin:shapes?rows=50000000"}}, [f"output={tmp_path}"])
    identity, _ = jobs.submit("prepare", job, elsewhere, follow=False, on_line=lambda _: None)
    jobs.stop(elsewhere, identity)
    assert {s.id: s.status for s in jobs.list_jobs(elsewhere).jobs}[identity] == "STOPPED"


def test_unknown_jobs_and_addresses_are_named(elsewhere):
    with pytest.raises(ClusterError, match="no job 'nosuch'"):
        jobs.stop(elsewhere, "nosuch")
    with pytest.raises(ClusterError, match="no Ray dashboard answers there"):
        jobs.list_jobs("http://127.0.0.1:9")


@pytest.mark.slow
def test_the_fit_check_runs_there_and_tells_what_it_found(elsewhere, tmp_path):
    spec = {"name": "a", "provider": "kubernetes", "image": "x", "storage": f"{tmp_path}/storage"}
    job = {"task": "causal_lm", "model": {"from": "new:llama-8b"}, "train": {"steps": 1}, "scale": {"workers": 2}}
    result = verbs.cluster_check(spec, job, address=elsewhere)
    assert result.nodes == 1
    assert result.worker_gib is not None
    assert result.worker_gib > 100
    assert [f.fault.startswith("a worker takes about") for f in result.findings if "worker" in f.fault] == [True]
    assert not any("storage" in f.fault for f in result.findings)


@pytest.mark.slow
def test_training_survives_its_client_and_when_stopped_writes_a_checkpoint_first(elsewhere, tmp_path):
    job = load(
        {
            "task": {"name": "causal_lm", "seq_len": 32}, "model": {"from": "new:gpt2-tiny"},
            "data": {"train": "builtin:shapes?rows=2000", "tokenizer": {"vocab_size": 400, "sample_rows": 200}},
            "train": {"steps": 100_000, "batch_size": 8, "log_every": 1}, "output": str(tmp_path / "run"),
        }
    )  # fmt: skip
    (tmp_path / "job.yaml").write_text(dump(job))
    words = ["submit", "train", str(tmp_path / "job.yaml"), "--address", elsewhere, "--retries", "3"]
    client = subprocess.Popen([sys.executable, "-m", "llmray", *words], stderr=subprocess.DEVNULL)
    metrics = tmp_path / "run" / "metrics.jsonl"
    until(metrics.exists)
    client.kill()
    client.wait()
    told = metrics.stat().st_size
    until(lambda: metrics.stat().st_size > 2 * told)
    last = jobs.list_jobs(elsewhere).jobs[-1]
    assert last.status == "RUNNING"
    jobs.stop(elsewhere, last.id)
    assert list((tmp_path / "run" / "checkpoints").glob("*/manifest.json"))
    assert "ended with exit code" not in (tmp_path / "run" / "logs" / f"{last.id}.log").read_text()


def test_only_code_and_the_job_travel(tmp_path):
    folder = jobs.packed({"job.yaml": "task: qa\n"}, tmp_path)
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".py", ".yaml"}
    with pytest.raises(ClusterError, match=r"MiB to upload, of which big is the largest part"):
        jobs.packed({"big": "x" * (jobs.MOST_BYTES + 1)}, tmp_path / "more")


@pytest.mark.slow
def test_what_kuberay_is_given_serves_a_job_behind_its_keys(elsewhere, models, tmp_path):
    """Deployed as KubeRay does it: a configuration file, handed to the dashboard."""
    key = keys.create(str(tmp_path / "keys.json"), "team").key
    ends = [{"task": task, "model": models[task], "cpus": 0.1} for task in ("classification", "causal_lm")]
    job, here = (
        load({"output": str(tmp_path), "serve": {"endpoints": ends}}),
        {"host": "127.0.0.1", "port": free_block()[0]},
    )
    dashboard = ServeSubmissionClient(elsewhere)
    dashboard.deploy_applications(config(job) | {"http_options": here})

    def said() -> dict[str, str]:
        found = dashboard.get_serve_details()["applications"]
        assert "DEPLOY_FAILED" not in {app["status"] for app in found.values()}, found
        return {name: app["status"] for name, app in found.items()}

    until(lambda: said() == dict.fromkeys(("classification", "causal_lm", "openai"), "RUNNING"), 200)
    with httpx.Client(base_url=f"http://127.0.0.1:{here['port']}", timeout=60) as http:
        for route in ("/classify", "/generate"):
            assert http.post(route, json={"inputs": "A red circle"}).status_code == 401
            answer = http.post(route, json={"inputs": "A red circle"}, headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 200, answer.text
        told = http.get("/v1/models", headers={"authorization": f"Bearer {key}"}).json()
    assert len(told["data"]) == 1
    dashboard.delete_applications()
