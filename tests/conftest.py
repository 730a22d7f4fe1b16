"""Fixtures that every room's tests share."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from playwright.sync_api import Browser, expect, sync_playwright
from werkzeug.serving import make_server

from serve.environment import free_block

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
PRESETS = {
    "qa": "bert-tiny",
    "translation": "marian-tiny",
    "captioning": "vit-gpt2-tiny",
    "causal_lm": "gpt2-tiny",
    "masked_lm": "bert-tiny",
    "classification": "bert-tiny",
    "chat": "llama-tiny",
}
OPTIONS = {"classification": {"labels": ["blue", "red"]}}
TEXTS = ["A red circle is above a blue square.", "Ein roter Kreis ist über einem blauen Quadrat.", "What is red?"] * 20
HEAD_PORTS = (
    *("port", "dashboard-port", "ray-client-server-port"),
    *("dashboard-agent-listen-port", "dashboard-agent-grpc-port"),
)
DASHBOARDS = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "dashboards"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A verb that ends badly ignores signals from then on, as all that this process starts would: it is no command."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their number: gzip's hold the time, and both processes must call a test the same."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process does all that needs the one Ray; a file whose tests name no group goes to whoever is free.
    `tests/cluster`, for which there must be none, comes first, then what needs it, which takes long."""

    def rank(item: pytest.Item) -> int:
        needs_ray = "ray_cluster" in getattr(item, "fixturenames", ())
        return 1 if needs_ray else 0 if item.path.parent.name == "cluster" else 2

    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("ray" if rank(item) == 1 else str(item.path)))
    items.sort(key=rank)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One real local Ray cluster for the whole test session."""
    from cluster.session import session
    from llmray.job.training import Scale

    with session(Scale(), cpus=6):
        yield


@pytest.fixture
def panels_have_data(ray_cluster: None, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Waits until every panel of a dashboard has data, asking a real Prometheus that watches the Ray of the tests."""
    import ray

    if not shutil.which("prometheus"):
        pytest.skip("needs prometheus (Debian: apt install prometheus)")
    (node,) = ray.nodes()
    target = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    scrape = {"job_name": "ray", "scrape_interval": "5s", "static_configs": [{"targets": [target]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))
    address = f"127.0.0.1:{free_block()[0]}"
    words = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]

    def answer(expr: str) -> list[Any]:
        try:
            found = httpx.get(f"http://{address}/api/v1/query", params={"query": expr}, timeout=5)
            return list(found.json()["data"]["result"])
        except (httpx.HTTPError, KeyError, ValueError):
            return []

    def look(name: str) -> None:
        panels = json.loads((DASHBOARDS / f"{name}.json").read_text())["panels"]
        waiting = {target["expr"] for panel in panels for target in panel["targets"]}
        until = time.monotonic() + 60
        while waiting := {expr for expr in waiting if not answer(expr)}:
            assert time.monotonic() < until, f"no data for {waiting}"
            time.sleep(0.5)

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", *words, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield look
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def head_ports() -> Callable[[], dict[str, int]]:
    """Free ports for a head node, by their option of `ray start`."""

    def chosen() -> dict[str, int]:
        first = free_block()[0]
        return {name: first + number for number, name in enumerate(HEAD_PORTS)}

    return chosen


@pytest.fixture(scope="session")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's interpreter by a path without spaces: nodes that are started by hand start no workers else."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "venv").symlink_to(sys.prefix)
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with random weights for each task that is served."""
    from llmray.corpus.tokenizer import train
    from llmray.job.schema import Job
    from llmray.model.load import build, processor, save
    from llmray.tasks import make

    root = tmp_path_factory.mktemp("models")
    train(TEXTS, 400).save_pretrained(root / "tokenizer")
    for name, preset in PRESETS.items():
        job = Job.model_validate(
            {
                "task": {"name": name} | OPTIONS.get(name, {}),
                "model": {"from": f"new:{preset}", "tokenizer": str(root / "tokenizer")},
            }
        )
        assert job.model is not None
        task = make(job.task, processor(job.model))
        save(build(job.model, task), task, str(root / name))
    return {name: str(root / name) for name in PRESETS}


@pytest.fixture
def speechless(models: dict[str, str], tmp_path: Path) -> str:
    """A model for questions that can be loaded but not asked: its weights lack the number of a token."""
    folder = shutil.copytree(models["qa"], tmp_path / "speechless")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["."] = 99_999
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return str(folder)


@pytest.fixture(scope="session")
def alike() -> Callable[[Any, Any], bool]:
    """Texts and places equal, scores to 1e-5: where weights lie in memory decides how they are added up."""

    def compare(one: Any, other: Any) -> bool:
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(compare(one[key], other[key]) for key in one)
        if isinstance(one, list):
            return len(one) == len(other) and all(map(compare, one, other))
        return abs(one - other) < 1e-5 if isinstance(one, float) else bool(one == other)

    return compare


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium; a machine without one skips, and says so, but not in CI."""
    if not Path(CHROMIUM).exists():
        reason = f"no browser here: {CHROMIUM} is missing (Debian: apt install chromium)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def shared_data() -> Path:
    """Real data beside the checkout; a user's clone has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data is not here: {SHARED_DATA}")
    return SHARED_DATA


class Unsteady:
    """An object store in this process that answers the first `failures` requests for each range with 503, and every
    request while it is `away`."""

    def __init__(self) -> None:
        self.app, self.failures, self.away = DomainDispatcherApplication(create_backend_app), 0, False
        self.asked: Counter[tuple[str, str]] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        fails = self.away
        if "HTTP_RANGE" in environ:
            request = (environ["PATH_INFO"], environ["HTTP_RANGE"])
            self.asked[request] += 1
            fails |= self.asked[request] <= self.failures
        if fails:
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self.app(environ, start_response)


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Unsteady]:
    """An object store with an empty `s3://bucket`, which this process and those that it starts know."""
    app = Unsteady()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)
    yield app
    s3fs.S3FileSystem().rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()
    thread.join()
    server.server_close()
