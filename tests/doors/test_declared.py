"""What KubeRay is given serves a job's endpoints, behind its keys: deployed as KubeRay does, through the dashboard."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from llmray.job.schema import Job
from serve import keys
from serve.declared import config
from serve.deploy import shutdown, status
from serve.environment import free_block

TEXT = {"inputs": "A red circle is above a blue square."}
WITHIN_S = 180


@pytest.fixture
def applications(ray_cluster: None) -> Iterator[str]:
    yield f"http://{ray.get_dashboard_url()}/api/serve/applications/"
    shutdown()


def running(url: str) -> dict[str, Any]:
    """The applications, once all run."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        found: dict[str, Any] = httpx.get(url).raise_for_status().json()["applications"]
        if any("FAILED" in app["status"] for app in found.values()):
            break
        if found and all(app["status"] == "RUNNING" for app in found.values()):
            return found
        time.sleep(0.5)
    raise AssertionError({name: (app["status"], app["message"]) for name, app in found.items()})


@pytest.mark.slow
def test_a_configuration_file_serves_the_job_behind_its_keys(
    applications: str, models: dict[str, str], tmp_path: Path
) -> None:
    key = keys.create(str(tmp_path / "keys.json"), "team").key
    ends = [{"task": task, "model": models[task], "cpus": 0.1} for task in ("classification", "causal_lm")]
    job = Job.model_validate({"output": str(tmp_path), "serve": {"endpoints": ends}})
    here = {"host": "127.0.0.1", "port": free_block()[0]}
    httpx.put(applications, json=config(job) | {"http_options": here}).raise_for_status()
    assert set(running(applications)) == {"classification", "causal_lm", "openai"}
    with httpx.Client(base_url=f"http://127.0.0.1:{here['port']}", timeout=60) as http:
        for route, body in {"/classify": TEXT, "/generate": TEXT | {"parameters": {"max_new_tokens": 4}}}.items():
            assert http.post(route, json=body).status_code == 401
            answer = http.post(route, json=body, headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 200, answer.text
        told = http.get("/v1/models", headers={"authorization": f"Bearer {key}"}).json()
    assert [model["object"] for model in told["data"]] == ["model"]
    assert {end.route for end in status().endpoints} == {"/classify", "/generate", "/v1"}
