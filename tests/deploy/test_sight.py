"""Alert rules are right and fire; every panel has data from a real Ray, through a real Prometheus."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from llmray.job.load import load
from llmray.search.report import Outcome
from llmray.search.watch import Gauges
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


@contextmanager
def telling() -> Iterator[None]:
    """A run that tells its row every second, and a sweep its trials."""
    over, logger, gauges = threading.Event(), Prometheus(load({"output": "runs/a"})), Gauges("runs/b")
    outcomes = [Outcome({}, 9, "running", 3, 2.0), Outcome({}, 9)]

    def tell() -> None:
        while not over.wait(1):
            logger.log(ROW)
            gauges.tell(outcomes, 2.0, 3)

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("name", ["cluster", "training", "sweeps"])
def test_every_panel_has_data(panels_have_data: Callable[[str], None], name: str) -> None:
    ray.get(ray.remote(lambda: None).remote())
    with telling():
        panels_have_data(name)


def test_no_dashboard_is_left_out() -> None:
    """`serving` is looked at where there are endpoints: in tests/doors/test_serve.py."""
    names = {path.stem for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}
    assert names == {"cluster", "training", "sweeps", "serving"}


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
