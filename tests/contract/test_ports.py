"""A machine that serves others opens one port to them, and that one asks for a key."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def open_to_others(session: int) -> set[int]:
    """Ports that a session's processes listen on, loopback left out."""
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True, check=True).stdout
    found = set()
    for pid in map(int, listed.split()):
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


@pytest.mark.slow
def test_one_port_answers_others_and_asks_for_a_key(models: dict[str, str], tmp_path: Path) -> None:
    port, key = free_block()[0], keys.create(str(tmp_path / "keys.json"), "ana").key
    words = [f"model.from={models['qa']}", "task=qa", f"output={tmp_path}", "serve.host=0.0.0.0", f"serve.port={port}"]
    asked = {"inputs": {"question": "What is red?", "context": "A red circle."}}
    with served(tmp_path / "said", *words) as session:
        assert ever_open_to_others(session) == {port}
        url = f"http://{outside()}:{port}/qa"
        assert httpx.post(url, json=asked).status_code == 401
        assert httpx.get(f"{url}/openapi.json").status_code == 401
        assert httpx.post(url, json=asked, headers={"authorization": f"Bearer {key}"}).status_code == 200
