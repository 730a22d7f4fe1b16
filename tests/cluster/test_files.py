"""The command line of clusters: a wrong file starts nothing, what tools read is written, kubectl's words arrive."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cluster import files, provision
from cluster.spec import load
from llmray import cli
from llmray.job.errors import ClusterError
from serve import keys

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "clusters"


def test_a_wrong_file_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: a\nprovider: aws\nregon: x\n")
    assert cli.main(["cluster", "up", str(path)]) == 2
    assert f"{path}:3: regon: unknown key" in capsys.readouterr().err


def test_a_rayjob_and_a_task_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("task: causal_lm\ntrain: {steps: 3}\n")
    words = ["cluster", "files", str(CONFIGS / "kubernetes.yaml"), "train", str(job), "--output", str(tmp_path / "o")]
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    _, manifest, task = (Path(path) for path in told["files"])
    assert [one["kind"] for one in yaml.safe_load_all(manifest.read_text())] == ["NetworkPolicy", "ConfigMap", "RayJob"]
    assert "&id" not in manifest.read_text()  # people read it
    assert f"llmray train {job} " in yaml.safe_load(task.read_text())["run"]
    assert told["commands"][1] == f"kubectl --namespace ml apply --filename {manifest}"


def test_a_rayservice_serves_what_the_job_says_and_asks_for_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.yaml"
    ends = "[{task: qa, model: org/reader}, {task: causal_lm, model: org/writer}]"
    job.write_text(f"output: {tmp_path}\nserve: {{endpoints: {ends}}}\n")
    words = ["cluster", "files", str(CONFIGS / "kubernetes.yaml"), "serve", str(job), "--output", str(tmp_path / "o")]
    assert cli.main(words) == 2
    assert "there is no API key" in capsys.readouterr().err
    keys.create(str(tmp_path / "keys.json"), "team")
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    authority, manifest = map(Path, told["files"])
    assert told["commands"] == [f"sh {authority}", f"kubectl --namespace ml apply --filename {manifest}"]
    fence, service = yaml.safe_load_all(manifest.read_text())
    assert (fence["kind"], service["kind"]) == ("NetworkPolicy", "RayService")
    serving = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    routes = {app.name: app.route_prefix for app in serving.applications}
    assert routes == {"qa": "/qa", "causal_lm": "/generate", "openai": "/v1"}


def test_given_hosts_have_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("task: causal_lm\n")
    assert cli.main(["cluster", "files", str(CONFIGS / "hosts.yaml"), "train", str(job)]) == 2
    assert "hosts are there already; `llmray cluster up` starts Ray on them" in capsys.readouterr().err


def test_a_cluster_that_was_never_up_is_nothing(tmp_path: Path) -> None:
    found = provision.status(load(CONFIGS / "hosts.yaml"), tmp_path)
    assert (found.nodes, found.address, found.tunnel) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_without_kubectl_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="need `kubectl` on this machine"):
        provision.status(load(CONFIGS / "kubernetes.yaml"))


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")
def test_the_authoritys_key_stays_nowhere_when_the_secret_cannot_be_made(
    tmp_path: Path,
) -> None:
    files.write_service(load(CONFIGS / "kubernetes.yaml"), {"http_options": {"port": 8000}}, {}, str(tmp_path))
    places = {"KUBECONFIG": str(tmp_path / "none"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["sh", tmp_path / "authority.sh"], env=os.environ | places, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "refused" in done.stderr
    assert len(list(tmp_path.glob("*/ca.crt"))) == 1
    assert not list(tmp_path.glob("*/ca.key"))


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")
def test_kubernetes_out_of_reach_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"kubectl get: .*refused"):
        provision.status(load(CONFIGS / "kubernetes.yaml"))
