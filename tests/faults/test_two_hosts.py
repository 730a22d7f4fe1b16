"""Two hosts and a client, each a network namespace of its own: jobs from afar, tokens, and a host that is cut off."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cluster.providers import tls
from llmray.store import journal

HEAD, WORKER, CLIENT = "10.99.0.1", "10.99.0.2", "10.99.0.3"
DASHBOARD = f"http://{HEAD}:8265"
MODEL = ["task={name: causal_lm, seq_len: 32}", "model.from=new:gpt2-tiny"]
STEPS = 1500
OBJECTS = 8076
SHAPED = ("burst", "256kb", "latency", "100ms")

pytestmark = [
    pytest.mark.xdist_group("clusters"),
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("ip") or os.getuid() != 0, reason="network namespaces need root and `ip`"),
]


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


class Host:
    """A network namespace with one address, and what runs in it."""

    def __init__(self, network: str, address: str, env: dict[str, str]) -> None:
        self.name, self.switch = f"{network}-{address.rpartition('.')[2]}", network
        self.address, self.env, self.running = address, os.environ | env, list[subprocess.Popen[bytes]]()
        run("ip", "netns", "add", self.name)
        port = f"port{address.rpartition('.')[2]}"
        run("ip", "link", "add", "eth0", "netns", self.name, "type", "veth", "peer", "name", port, "netns", network)
        run("ip", "-n", network, "link", "set", port, "master", "switch", "up")
        run("ip", "-n", self.name, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", self.name, "link", "set", device, "up")

    def start(self, log: Path, *words: str) -> None:
        """Ray's files are its own: two that share them unpack a job's code over each other."""
        files, shared = Path(self.env["HOME"], "ray"), Path("/tmp/ray")
        files.mkdir(exist_ok=True)
        shared.mkdir(exist_ok=True)
        within = ["sh", "-c", f'mount --bind "$0" {shared} && exec "$@"', str(files)]
        with log.open("ab") as file:
            command = ["ip", "netns", "exec", self.name, *within, *words]
            self.running.append(
                subprocess.Popen(command, env=self.env, stdout=file, stderr=file, start_new_session=True)
            )

    def encrypt(self, folder: Path, home: Path) -> None:
        """As `cluster up` does."""
        (home / tls.FOLDER).mkdir(parents=True)
        for there, here in tls.authority(folder).items():
            shutil.copy(here, there.replace("~", str(home)))
        self.env |= {"HOME": str(home), **tls.variables(str(home / tls.FOLDER))}
        command = ["ip", "netns", "exec", self.name, "bash", "-c", tls.certify(tls.MOUNTED)]
        subprocess.run(command, env=self.env, check=True, capture_output=True)

    def llmray(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self.name, sys.executable, "-m", "llmray", *words]
        return subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=400, check=False)

    def get(self, url: str, *words: str) -> str:
        command = ["ip", "netns", "exec", self.name, "curl", "-s", "-m", "60", url, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def link(self, state: str) -> None:
        run("ip", "-n", self.name, "link", "set", "eth0", state)

    @contextmanager
    def slow(self, rate: str) -> Iterator[None]:
        """What it sends leaves at no more than this rate."""
        run("tc", "-n", self.name, "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, *SHAPED)
        try:
            yield
        finally:
            run("tc", "-n", self.name, "qdisc", "delete", "dev", "eth0", "root")

    @contextmanager
    def closed(self, port: int) -> Iterator[None]:
        """It opens no connection to this port of others."""
        rule = ["ipproto", "tcp", "dport", str(port), "prohibit"]
        run("ip", "-n", self.name, "rule", "add", *rule)
        try:
            yield
        finally:
            run("ip", "-n", self.name, "rule", "delete", *rule)

    def end(self) -> None:
        while inside := subprocess.check_output(["ip", "netns", "pids", self.name], text=True).split():
            for pid in map(int, inside):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self.running:
                process.wait()
        run("ip", "netns", "delete", self.name)


@contextmanager
def network(env: dict[str, str]) -> Iterator[dict[str, Host]]:
    name = f"llmray{os.getpid()}"
    run("ip", "netns", "add", name)
    hosts: dict[str, Host] = {}
    try:
        run("ip", "-n", name, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", name, "link", "set", "switch", "up")
        for address in (HEAD, WORKER, CLIENT):
            hosts[address] = Host(name, address, env)
        yield hosts
    finally:
        for host in reversed(hosts.values()):
            host.end()
        run("ip", "netns", "delete", name)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, plain_python: Path) -> Iterator[dict[str, Host]]:
    """A head and a worker that is started again whenever it ends, with a token; a third host that may ask them."""
    folder = tmp_path_factory.mktemp("cluster")
    ray = [str(plain_python), "-m", "ray.scripts.scripts", "start", "--block"]
    ray += ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    env = {
        "PATH": f"{plain_python.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        # A lost node is noticed in seconds rather than in a minute.
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "2000",
    }
    tls.make_authority(folder, "two")
    with network(env) as made:
        for address in (HEAD, WORKER):
            made[address].encrypt(folder, folder / address)
        head = ["--head", f"--node-ip-address={HEAD}", "--port=6379", f"--dashboard-host={HEAD}"]
        head += [f"--object-manager-port={OBJECTS}"]
        made[HEAD].start(folder / "head", *ray, *head)
        joining = " ".join([*ray, f"--address={HEAD}:6379", f"--node-ip-address={WORKER}"])
        made[WORKER].start(folder / "worker", "bash", "-c", f"while true; do {joining}; sleep 1; done")
        until(lambda: len(alive(made)) == 2, "two nodes", folder)
        yield made


def alive(hosts: dict[str, Host]) -> list[str]:
    bearer = f"authorization: Bearer {hosts[HEAD].env['RAY_AUTH_TOKEN']}"
    found = hosts[CLIENT].get(f"{DASHBOARD}/api/v0/nodes", "-H", bearer)
    try:
        nodes = json.loads(found)["data"]["result"]["result"]
    except (ValueError, KeyError):
        return []
    return [node["node_ip"] for node in nodes if node["state"] == "ALIVE"]


def until(true: Callable[[], bool], what: str, logs: Path | None = None, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        said = "".join(f.read_text()[-3000:] for f in sorted(logs.glob("*")) if f.is_file()) if logs else ""
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s\n{said}"
        time.sleep(0.2)


def test_a_host_that_is_cut_off_and_comes_back_costs_only_time(hosts: dict[str, Host], tmp_path: Path) -> None:
    client, store, output = hosts[CLIENT], tmp_path / "store", tmp_path / "run"
    corpus = ["data.train=builtin:shapes?rows=400", "data.tokenizer={vocab_size: 400, sample_rows: 200}"]
    prepared = client.llmray("submit", "prepare", *MODEL, *corpus, f"output={store}", "--address", DASHBOARD)
    assert prepared.returncode == 0, prepared.stderr

    train = f"train={{steps: {STEPS}, batch_size: 8, log_every: 1, checkpoint_every: 25}}"
    words = [*MODEL, train, f"data.train={store}", "scale={workers: 2, min_workers: 1}", f"output={output}"]
    client.start(tmp_path / "said", sys.executable, "-m", "llmray", "submit", "train", *words, "--address", DASHBOARD)
    submission = client.running[-1]
    until(lambda: rows(output) > 100, "a hundred steps", tmp_path)
    assert "with 1 of 2 workers" not in (tmp_path / "said").read_text()
    hosts[WORKER].link("down")
    until(lambda: alive(hosts) == [HEAD], "the loss noticed", tmp_path)
    until(lambda: "with 1 of 2 workers" in (tmp_path / "said").read_text(), "going on alone", tmp_path)
    hosts[WORKER].link("up")
    until(lambda: len(alive(hosts)) == 2, "the host back", tmp_path)
    assert submission.wait(300) == 0, (tmp_path / "said").read_text()
    steps = [row["step"] for row in journal.read(str(output / "metrics.jsonl"))]
    assert steps == list(range(1, STEPS + 1))
    assert (output / "model" / "model.safetensors").exists()


def rows(output: Path) -> int:
    path = output / "metrics.jsonl"
    return len(journal.read(str(path))) if path.exists() else 0


def test_without_the_token_nothing_is_taken(hosts: dict[str, Host]) -> None:
    words = ["submit", "prepare", *MODEL, "data.train=builtin:shapes?rows=9", "--address", DASHBOARD]
    for env in ({"RAY_AUTH_TOKEN": "another"}, {"RAY_AUTH_MODE": "disabled"}):
        refused = hosts[CLIENT].llmray(*words, **env)
        assert refused.returncode == 1
        assert "RAY_AUTH_TOKEN" in refused.stderr


def test_what_speaks_no_tls_is_not_heard(hosts: dict[str, Host]) -> None:
    asks = f"from ray._raylet import GcsClient; print(GcsClient(address='{HEAD}:6379').get_all_node_info(timeout=5))"
    for address, told in ((CLIENT, False), (WORKER, True)):
        command = ["ip", "netns", "exec", hosts[address].name, sys.executable, "-c", asks]
        done = subprocess.run(command, env=hosts[address].env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode == 0) is told, done.stderr


def test_the_fit_check_finds_a_slow_link_and_a_closed_port(hosts: dict[str, Host]) -> None:
    with hosts[WORKER].slow("100mbit"), hosts[WORKER].closed(OBJECTS):
        checked = hosts[CLIENT].llmray("cluster", "check", "--address", DASHBOARD, "--json")
    assert checked.returncode == 1, checked.stderr
    found = json.loads(checked.stdout)
    assert found["nodes"] == 2
    faults = [one["fault"] for one in found["findings"] if one["node"] == WORKER]
    assert [one for one in faults if one.startswith(f"cannot connect to {HEAD}:{OBJECTS};")]
    assert [one for one in faults if one.startswith("sends 0.") and "the fastest link" in one]
    assert not [one for one in found["findings"] if one["node"] == HEAD and "connect" in one["fault"]]


def test_what_is_served_there_answers_who_has_a_key(hosts: dict[str, Host], tmp_path: Path) -> None:
    client, output = hosts[CLIENT], tmp_path / "run"
    corpus = ["data.train=builtin:shapes?rows=40", "data.tokenizer={vocab_size: 400, sample_rows: 40}"]
    words = [*MODEL, *corpus, "train={steps: 2, batch_size: 4}", f"output={output}"]
    trained = client.llmray("train", *words, RAY_AUTH_MODE="disabled")
    assert trained.returncode == 0, trained.stderr
    served = [f"serve.endpoints=[{{task: causal_lm, model: {output}/model, cpus: 0.1}}]", "serve.host=0.0.0.0"]
    served += [f"output={tmp_path}", f"serve.keys={tmp_path}/keys.json"]
    made = client.llmray("keys", "create", "ana", *served, "--json")
    key = json.loads(made.stdout)["key"]
    refused = client.llmray("submit", "serve", *served, f"serve.host={HEAD}", "--address", DASHBOARD)
    assert refused.returncode == 2
    assert "the cluster has 2" in refused.stderr
    deployed = client.llmray("submit", "serve", *served, "--address", DASHBOARD)
    assert deployed.returncode == 0, deployed.stderr
    url, body = f"http://{HEAD}:8000/generate", json.dumps({"inputs": "A red", "parameters": {"max_new_tokens": 2}})
    assert "API key" in client.get(url, "-d", body)
    assert "generated_text" in client.get(url, "-d", body, "-H", f"authorization: Bearer {key}")
