"""What endpoints do under load when replicas die, versions change, copies come and go, and too much is asked.

    python benchmarks/load.py [--scenes killed rolled scaled flooded cold] [--clients 16] [--seconds 60] [--size tiny]

A question answering model of random weights (in int8) is served, and asked by a process of its own.  For `flooded` take
one that is slow (`--size base`), or the clients are what is too slow.

killed: three replicas, one of which `kill -9` ends every 5 s.  rolled: another version is served, and the first again,
every 10 s.  scaled: nobody asks until no replica is left, then many do until there are three, three times.
flooded: as many requests come as ten times what was answered in closed loop before, for a quarter of the time, with a
deadline of 5 s.
cold: one request, when no replica is left; beside it the time that plain Python takes to load and ask the model.

Prints a Markdown table of a scene's figures; some 15 minutes for all.  Ends with 1 where a request of the first three
scenes was not answered.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from clients import Asked, closed, ms, opened, per_second
from endpoints import bodies, made, records

from cluster.session import session
from llmray.job.schema import Serve
from llmray.job.training import Scale
from llmray.store.journal import Progress
from serve.deploy import deploy, shutdown
from serve.environment import free_block

KILL_EVERY_S, ROLL_EVERY_S = 5.0, 10.0
TIMES_CAPACITY = 10
DEADLINE_S = 5
"""Of the flood's requests."""
PATIENCE_S = 120
RUNS = 3
"""Of scaling to and from nothing, and of cold starts."""
LOOK_EVERY_S = 0.1
PARTS = {"ray::ServeReplica": "the replica", "haproxy": "HAProxy", "ray::ProxyActor": "Ray's proxy"}
"""What a process's command begins with → the part of serving that it is."""
LOST = "not answered"
COLD = """
import sys, time
from llmray.model.predict import Predictor
from llmray.tasks.base import Request
predictor = Predictor.load(sys.argv[1], device="cpu", engine="auto")
predictor.predict([Request({"question": "What is red?", "context": "The circle is red."}, {})])
"""


@dataclass
class Stage:
    """One Serve with one endpoint, and a process that asks it."""

    models: list[str]
    sent: list[bytes]
    crowd: ProcessPoolExecutor
    port: int
    url: str = ""

    def serve(self, version: int = 0, deadline_s: float = PATIENCE_S, **options: Any) -> None:
        end = {"task": "qa", "model": self.models[version], "engine": "auto", "cpus": 0.1} | options
        job = Serve.model_validate({"port": self.port, "endpoints": [end], "limits": {"deadline_s": deadline_s}})
        self.url = f"{deploy(job, None, Progress.silent()).url}/qa"

    def ask(self, way: Callable[[str, list[bytes], Any, float], list[Asked]], much: float, seconds: float) -> Any:
        return self.crowd.submit(way, self.url, self.sent, much, seconds)

    def copies(self, *, ending: bool = False) -> list[int]:
        """Process ids of the replicas that run, and of those that are `ending`, which still answer."""
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        app = ray.get(controller.get_serve_instance_details.remote())["applications"]["qa"]
        pids = [one["pid"] for one in app["deployments"]["qa"]["replicas"] if ending or one["state"] == "RUNNING"]
        return [pid for pid in pids if pid and psutil.pid_exists(pid)]

    def wait_for(self, copies: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (found := len(self.copies(ending=copies == 0))) != copies:
            if time.monotonic() > deadline:
                raise SystemExit(f"{found} replicas run after {PATIENCE_S} s, not {copies}")
            time.sleep(0.1)


@contextmanager
def meanwhile(every_s: float, act: Callable[[int], None]) -> Iterator[list[int]]:
    """`act` in a thread, again and again, until the block ends; the turns it took."""
    over, turns = threading.Event(), list[int]()

    def work() -> None:
        while not over.wait(every_s):
            act(len(turns))
            turns.append(len(turns))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield turns
    finally:
        over.set()
        thread.join()


def statuses(found: Sequence[Asked]) -> str:
    return ", ".join(f"{count:,} × {said}" for said, count in Counter(one.status for one in found).most_common())


def answered(found: Sequence[Asked]) -> dict[str, Any]:
    return {"answers": statuses(found), LOST: sum(one.status != "200" for one in found)}


def killed(stage: Stage, asked: argparse.Namespace) -> dict[str, Any]:
    stage.serve(min_replicas=3, max_replicas=3)

    def kill(_: int) -> None:
        while len(alive := stage.copies()) < 2:  # what the last copy had in hand may be lost
            time.sleep(0.1)
        os.kill(alive[0], signal.SIGKILL)

    with meanwhile(KILL_EVERY_S, kill) as kills:
        found = stage.ask(closed, asked.clients, asked.seconds).result()
    return {"replicas killed": len(kills), **answered(found), "p99": f"{ms(found, 99):,.0f} ms"}


def rolled(stage: Stage, asked: argparse.Namespace) -> dict[str, Any]:
    stage.serve(0)
    with meanwhile(ROLL_EVERY_S, lambda turn: stage.serve((turn + 1) % 2)) as rolls:
        found = stage.ask(closed, asked.clients, asked.seconds).result()
    return {"versions rolled out": len(rolls), **answered(found), "p99": f"{ms(found, 99):,.0f} ms"}


def scaled(stage: Stage, asked: argparse.Namespace) -> dict[str, Any]:
    stage.serve(min_replicas=0, max_replicas=3, idle_s=1, max_batch_size=2)  # so few clients need three
    found = list[Asked]()
    for _ in range(RUNS):
        stage.wait_for(0)
        asking = stage.ask(closed, asked.clients, asked.seconds / RUNS)
        stage.wait_for(3)
        found += asking.result()
    stage.wait_for(0)
    return {"times from 0 to 3 and back": RUNS, **answered(found)}


def flooded(stage: Stage, asked: argparse.Namespace) -> dict[str, Any]:
    stage.serve(max_replicas=1, cpus=1, deadline_s=DEADLINE_S)
    seconds = asked.seconds / 4
    best = per_second(stage.ask(closed, asked.clients, seconds).result())
    usual = ms(stage.ask(closed, 1, seconds / 4).result(), 50)
    before = most = held()

    def look(_: int) -> None:
        nonlocal most
        most = most | held()

    with meanwhile(LOOK_EVERY_S, look):
        asking = stage.ask(opened, TIMES_CAPACITY * best, seconds)
        time.sleep(seconds)
        recovered = recovery(stage, asking, 2 * usual / 1000)
    flood = asking.result()
    good, refused = ([one for one in flood if (one.status == "200") == well] for well in (True, False))
    rate = per_second(good)
    return {
        "answered a second, in closed loop": f"{best:,.1f}",
        "asked a second": f"{len(flood) / seconds:,.0f}",
        "answered a second": f"{rate:,.1f}, {rate / best:.2f} of that in closed loop",
        "answers": statuses(flood),
        "p99 of the answered": f"{ms(good, 99):,.0f} ms",
        "p50 and p99 of the refused": f"{ms(refused, 50):,.0f} and {ms(refused, 99):,.0f} ms" if refused else "none",
        **{f"memory of {part}": f"{before[part]:,} MB; {most[part]:,} MB at most" for part in PARTS.values()},
        "from the last request of the flood to one that takes at most twice as usual": f"{recovered:.1f} s",
    }


def held() -> Counter[str]:
    """Resident memory of each of `PARTS`, in MB."""
    found = Counter[str]()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            command = " ".join([Path(words[0]).name, *words[1:]]) if (words := process.cmdline()) else ""
            for beginning, part in PARTS.items():
                if command.startswith(beginning):
                    found[part] += process.memory_info().rss >> 20
    return found


def recovery(stage: Stage, flood: Future[list[Asked]], within_s: float) -> float:
    """Seconds from when the last request of a flood was due to the end of a later one that took `within_s` at most."""
    since = list[Asked]()
    while True:
        since += closed(stage.url, stage.sent, 1, 0)
        if flood.done():
            last = max(map(due, flood.result()))
            quick = [one for one in since if due(one) > last and one.status == "200" and one.took_s <= within_s]
            if quick:
                return quick[0].ended - last


def due(one: Asked) -> float:
    return one.ended - one.took_s


def cold(stage: Stage, asked: argparse.Namespace) -> dict[str, Any]:
    stage.serve(min_replicas=0, max_replicas=1, idle_s=1)
    took, plain = list[float](), list[float]()
    for _ in range(RUNS):
        stage.wait_for(0)
        [one] = stage.ask(closed, 1, 0).result()
        if one.status != "200":
            raise SystemExit(f"a cold start was answered {one.status}")
        took.append(one.took_s)
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", COLD, stage.models[0]], check=True)
        plain.append(time.monotonic() - began)
    first, load = statistics.median(took), statistics.median(plain)
    return {
        "first answer": f"{first:.1f} s",
        "plain Python loads the model and asks it": f"{load:.1f} s",
        "the rest": f"{first - load:.1f} s",
    }


SCENES: dict[str, Callable[[Stage, argparse.Namespace], dict[str, Any]]] = {
    "killed": killed, "rolled": rolled, "scaled": scaled, "flooded": flooded, "cold": cold,
}  # fmt: skip


def main(asked: argparse.Namespace) -> None:
    rows = records("qa", asked.data)
    sent = [json.dumps(body).encode() for body in bodies("qa", rows)]
    spawned = multiprocessing.get_context("spawn")
    lost = 0
    print("| scene | | |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="llmray-bench-") as scratch, ProcessPoolExecutor(1, spawned) as crowd:
        folders = [Path(scratch, name) for name in ("first", "second")]
        models = [made("qa", asked.size, rows, folder) for folder in folders]
        for scene in asked.scenes:
            with session(Scale(), cpus=8, nice=False):
                try:
                    figures = SCENES[scene](Stage(models, sent, crowd, free_block()[0]), asked)
                    for what, figure in figures.items():
                        print(f"| {scene} | {what} | {figure} |", flush=True)
                    lost += figures.get(LOST, 0)
                finally:
                    shutdown()
    sys.exit(lost > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", default="tiny", help="of the presets bert-…")
    parser.add_argument("--data", help="folder with squad/")
    main(parser.parse_args())
