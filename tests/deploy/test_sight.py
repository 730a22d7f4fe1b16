"""Alert rules are right and fire; every panel has data from a real Ray, through a real Prometheus."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import requests
import yaml

from llmray.job.load import load
from llmray.training.loggers import Prometheus

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NEEDS = "Debian: apt install prometheus"
ROW = {
    "step": 3, "loss": 2.0, "eval_loss": 2.1, "learning_rate": 1e-3, "grad_norm": 0.5, "tokens_per_s": 9.0,
    "data_wait_s": 0.1, "memory_bytes": 10,
}  # fmt: skip


@pytest.mark.skipif(not shutil.which("promtool"), reason=NEEDS)
@pytest.mark.parametrize("words", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]])
def test_alert_rules_are_right_and_fire(words: list[str]) -> None:
    done = subprocess.run(["promtool", *words], cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    rules = [rule["alert"] for group in loaded("alerts.yml")["groups"] for rule in group["rules"]]
    tested = [one for test in loaded("alerts_test.yml")["tests"] for one in test["alert_rule_test"]]
    assert sorted(rules) == sorted({one["alertname"] for one in tested if "exp_alerts" in one})


@pytest.fixture(scope="module")
def prometheus(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that watches the Ray of the tests, in which a run tells its row."""
    if not shutil.which("prometheus"):
        pytest.skip(NEEDS)
    folder, (node,) = tmp_path_factory.mktemp("prometheus"), ray.nodes()
    target = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    scrape = {"job_name": "ray", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        words = ["prometheus", *config, f"--web.listen-address={address}"]
        process = subprocess.Popen(words, stdout=log, stderr=log)
    ray.get(ray.remote(lambda: None).remote())
    with telling():
        yield f"http://{address}"
    process.terminate()
    process.wait()


@contextmanager
def telling() -> Iterator[None]:
    """A run that tells its row every second."""
    over, logger = threading.Event(), Prometheus(load({"output": "runs/a"}))

    def tell() -> None:
        while not over.wait(1):
            logger.log(ROW)

    thread = threading.Thread(target=tell)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("path", sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")), ids=lambda p: p.stem)
def test_every_panel_has_data(prometheus: str, path: Path) -> None:
    panels = json.loads(path.read_text())["panels"]
    waiting = {target["expr"] for panel in panels for target in panel["targets"]}
    until = time.monotonic() + 60
    while waiting := {expr for expr in waiting if not answer(prometheus, expr)}:
        assert time.monotonic() < until, f"no data for {waiting}"
        time.sleep(0.5)


def answer(prometheus: str, expr: str) -> list[Any]:
    try:
        return list(requests.get(f"{prometheus}/api/v1/query", {"query": expr}, timeout=5).json()["data"]["result"])
    except (requests.exceptions.RequestException, KeyError):
        return []


def test_the_local_cluster_is_closed_to_other_machines_and_its_files_are_there() -> None:
    services = loaded("compose.yaml")["services"]
    assert set(services) == {"head", "worker", "prometheus", "grafana", "mlflow", "minio"}
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        mounts = [mount.split(":")[0] for mount in service.get("volumes", ())]
        assert all((DEPLOY / mount).exists() for mount in mounts if mount.startswith("."))
    assert "RAY_AUTH_TOKEN" in services["worker"]["environment"]


def test_the_image_runs_without_root_and_copies_what_is_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((DEPLOY.parent / name).exists() for name in copied)


def loaded(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())
