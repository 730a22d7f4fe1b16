"""A machine that serves others opens one port to them, and that one asks for a key; another program can end it."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import httpx
import psutil
import pytest

from serve import keys
from serve.environment import free_block
from serve.head import outside


@contextmanager
def served(said: Path, *words: str) -> Iterator[int]:
    """`llmray serve WORDS`, in a session of its own whose number this gives, until the context ends."""
    with said.open("w") as file:
        command = [sys.executable, "-m", "llmray", "serve", *words]
        server = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while "Press Ctrl-C" not in said.read_text():
            assert server.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        yield server.pid
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def listed(session: int, what: str) -> str:
    """A line about each process of a session."""
    command = ["ps", "-ww", "-o", f"{what}=", "-s", str(session)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def open_to_others(session: int) -> set[int]:
    """Ports that a session's processes listen on, loopback left out."""
    found = set()
    for pid in map(int, listed(session, "pid").split()):
        with suppress(psutil.NoSuchProcess):
            for socket in psutil.Process(pid).net_connections("tcp"):
                if socket.status == psutil.CONN_LISTEN and not is_loopback(socket.laddr.ip):
                    found.add(socket.laddr.port)
    return found


def ever_open_to_others(session: int) -> set[int]:
    """Those of some seconds: HAProxy, for one, is started anew whenever replicas come or go."""
    found = set()
    for _ in range(10):
        found |= open_to_others(session)
        time.sleep(0.3)
    return found


def is_loopback(address: str) -> bool:
    known = ip_address(address)
    mapped = known.ipv4_mapped if isinstance(known, IPv6Address) else None
    return (mapped or known).is_loopback


@dataclass(frozen=True)
class Program:
    """A `llmray serve` that runs."""

    session: int
    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://{outside()}:{self.port}/qa"

    def told(self, verb: str) -> str:
        """What `llmray serve VERB` of another process prints; it must be told which of this machine's Rays is meant."""
        [address, *_] = re.findall(r"--gcs-address=(\S+)", listed(self.session, "args"))
        command = [sys.executable, "-m", "llmray", "serve", verb, "--address", address, "--json"]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=200).stdout


@pytest.fixture(scope="module")
def program(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder, port = tmp_path_factory.mktemp("served"), free_block()[0]
    key = keys.create(str(folder / "keys.json"), "ana").key
    words = [f"model.from={models['qa']}", "task=qa", f"output={folder}", "serve.host=0.0.0.0", f"serve.port={port}"]
    with served(folder / "said", *words) as session:
        yield Program(session, port, key)


@pytest.mark.slow
def test_one_port_answers_others_and_asks_for_a_key(program: Program) -> None:
    asked = {"inputs": {"question": "What is red?", "context": "A red circle."}}
    assert ever_open_to_others(program.session) == {program.port}
    assert httpx.post(program.url, json=asked).status_code == 401
    assert httpx.get(f"{program.url}/openapi.json").status_code == 401
    assert httpx.post(program.url, json=asked, headers={"authorization": f"Bearer {program.key}"}).status_code == 200


@pytest.mark.slow
def test_another_process_tells_what_is_served_and_ends_it(program: Program) -> None:
    [end] = json.loads(program.told("status"))["endpoints"]
    assert (end["task"], end["url"], end["status"], end["replicas"]) == ("qa", program.url, "RUNNING", 1)
    assert end["requests_per_s"] is not None
    program.told("stop")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{program.url}/healthz")
    assert json.loads(program.told("status"))["endpoints"] == []
