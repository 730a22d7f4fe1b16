"""Requests per second and latency of llmray's endpoints beside FastAPI, LitServe and Ray Serve itself, as Markdown.

    python benchmarks/endpoints.py [--tasks qa translation http] [--servers …] [--clients 1 8 32] [--seconds 8]
                               [--size base] [--open RATE] [--data FOLDER] [--threads 2]

All serve the same weights and are asked the same, one after the other: closed loop (each client asks again once it is
answered), or with `--open` at random times RATE times a second, whether answered or not.  The weights are random, since
speed does not depend on them, in the shape of BERT-base and of OPUS-MT (`--size base`); a translation has 24 tokens, as
these weights do not end a sentence.  How much int8 costs in quality is `llmray export`'s to say, of trained models.

`http` is what there is beside the model: all give the same answer each time, and are asked by wrk (Debian: `apt install
wrk`).  llmray asks for an API key throughout.

No server's threads spin while they wait (`OMP_WAIT_POLICY`): on two cores that cost LitServe 200 ms a request.
`--data`: a folder with `squad/` and `multi30k/`; else questions and sentences are those of `builtin:shapes`.  With the
defaults it takes about 15 minutes.  LitServe: `pip install 'llmray[bench]'`.
"""

import argparse
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import torch
from clients import Asked, Figures, closed, ms, opened, per_second, wrk

from llmray.corpus.record import Pair, Question, Record
from llmray.corpus.source import read, shards
from llmray.corpus.tokenizer import train
from llmray.job.data import Source
from llmray.job.schema import Job
from llmray.model import load
from llmray.model.export import export
from llmray.model.predict import Predictor
from llmray.store.journal import Progress
from llmray.tasks import make
from llmray.tasks.base import Request
from serve.keys import create

TOKENS = 24
KEPT = 256
"""Different requests."""
READY_S = 180
ENGINE = {"qa": "onnx", "translation": "ctranslate2"}
ROUTE = {"qa": "qa", "translation": "translate", "http": "classify"}
SERVERS = ("llmray int8", "llmray torch", "fastapi", "litserve", "rayserve")
BODY = b'{"inputs": "a red circle", "parameters": {}}'
ROOT = Path(__file__).resolve().parents[1]


def sources(task: str, data: str | None) -> Source:
    if data is None:
        return Source(path=f"builtin:shapes?rows={KEPT}&split=eval")
    if task == "qa":
        return Source(path=f"{data}/squad/dev-v1.1.json.gz", limit=KEPT)
    test = f"{data}/multi30k/test_2016_flickr"
    return Source(path=f"{test}.en.gz", target=f"{test}.de.gz", limit=KEPT)


def records(task: str, data: str | None) -> dict[str, list[Any]]:
    record: type[Record] = Question if task == "qa" else Pair
    found: dict[str, list[Any]] = {}
    for shard in shards(sources(task, data)):
        for columns in read(shard, record):
            for name, values in columns.items():
                found.setdefault(name, []).extend(values)
    return {name: values[:KEPT] for name, values in found.items()}


def made(task: str, size: str, rows: dict[str, list[Any]], folder: Path) -> str:
    """A model of random weights, and its int8 form."""
    texts = [text for name in ("context", "question", "source", "target") for text in rows.get(name, ())]
    train(texts * 4, 8000).save_pretrained(folder / "tokenizer")
    family = "marian" if task == "translation" else "bert"
    model = {"from": f"new:{family}-{size}", "tokenizer": str(folder / "tokenizer")}
    job = Job.model_validate({"task": task, "model": model})
    assert job.model is not None
    torch.manual_seed(0)
    judged = make(job.task, load.processor(job.model))
    load.save(load.build(job.model, judged), judged, str(folder / "model"))
    few = {name: values[:16] for name, values in rows.items()}
    export(str(folder / "model"), ENGINE[task], lambda _: [few], 1e9, Progress(), int8=True)  # type: ignore[arg-type]
    return str(folder / "model")


def bodies(task: str, rows: dict[str, list[Any]]) -> list[dict[str, Any]]:
    if task == "qa":
        pairs = zip(rows["question"], rows["context"], strict=True)
        return [{"inputs": {"question": question, "context": context}} for question, context in pairs]
    return [{"inputs": text, "parameters": {"max_new_tokens": TOKENS}} for text in rows["source"]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    server: str, task: str, folder: str, threads: int, body: dict[str, Any], keys: str
) -> Iterator[tuple[str, str]]:
    """URL and key of a server that has answered `body`; llmray's asks for one of `keys`.

    Its process group ends with the block: LitServe leaves children.
    """
    port = free_port()
    words = ["-c", f"from benchmarks.serving import {server}; {server}({task!r}, {folder!r}, {port})"]
    url, key = f"http://127.0.0.1:{port}/", ""
    if server.startswith("llmray"):
        key = create(keys, "bench").key
        words = ["-c", f"from benchmarks.echo import run; run({folder!r}, {port}, {keys!r})"]
        if task in ENGINE:
            engine = ENGINE[task] if server.endswith("int8") else "torch"
            options = {"cpus": threads, "max_replicas": 1, "engine": engine}
            end = [f"serve.endpoints.0.{option}={value}" for option, value in options.items()]
            named = f"serve.endpoints=[{{model: '{folder}', task: {task}}}]"
            words = ["-m", "llmray", "serve", f"serve.port={port}", f"serve.keys={keys}", named, *end]
        url += ROUTE[task]
    quiet = None if os.environ.get("SHOW") else subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *words], stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        wait_for(url, body, key, process)
        yield url, key
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, body: dict[str, Any], key: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False).raise_for_status()
            return
        except httpx.HTTPError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{url} does not answer ({error}); SHOW=1 shows what the server says") from error
            time.sleep(0.5)


def bare(task: str, folder: str, engine: Any, asked: list[dict[str, Any]], size: int, seconds: float) -> list[Asked]:
    """The engine in a loop of passes over `size` requests, without HTTP: the limit."""
    model = Predictor.load(folder, device="cpu", engine=engine)
    requests = [Request(b["inputs"] if task == "qa" else {"text": b["inputs"]}, b.get("parameters", {})) for b in asked]
    parts = [requests[at : at + size] for at in range(0, len(requests) - size + 1, size)]
    model.predict(parts[0])
    passes, end = list[Asked](), time.monotonic() + seconds
    for part in cycle(parts):
        if (at := time.monotonic()) > end:
            break
        model.predict(part)
        passes.append(Asked("200", (now := time.monotonic()) - at, now))
    return passes


def told(task: str, what: str, clients: str, found: list[Asked] | Figures, each: int = 1) -> None:
    if not isinstance(found, Figures):
        if wrong := [one.status for one in found if one.status != "200"]:
            raise SystemExit(f"{what}: {len(wrong)} requests of {len(found)} were not answered: {wrong[0]}")
        found = Figures(each * per_second(found), ms(found, 50), ms(found, 99))
    print(f"| {task} | {what} | {clients} | {found.rate:,.1f} | {found.p50:,.1f} | {found.p99:,.1f} |", flush=True)


def layers(size: argparse.Namespace, folder: Path) -> None:
    """The servers alone."""
    for server in [each for each in size.servers if each != "llmray torch"]:
        keys = str(folder / "keys.json")
        with running(server, "http", str(folder), size.threads, json.loads(BODY), keys) as (url, key):
            wrk(url, BODY, max(size.clients), 2, key)  # warm
            for clients in size.clients:
                told("http", server.split()[0], str(clients), wrk(url, BODY, clients, size.seconds, key))


def compare(task: str, size: argparse.Namespace, folder: Path) -> None:
    rows = records(task, size.data)
    model, asked = made(task, size.size, rows, folder), bodies(task, rows)
    for engine, name in (("torch", "torch"), (ENGINE[task], f"{ENGINE[task]} int8")):
        for count in (1, 16):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:  # as the servers are set up
                found = other.submit(bare, task, model, engine, asked, count, size.seconds / 2).result()
            told(task, f"bare {name}, batches of {count}", "", found, count)
    sent = [json.dumps(body).encode() for body in asked]
    for server in size.servers:
        with running(server, task, model, size.threads, asked[0], str(folder / "keys.json")) as (url, key):
            closed(url, sent, max(size.clients), size.seconds / 4, key)  # warm
            for clients in size.clients:
                told(task, server, str(clients), closed(url, sent, clients, size.seconds, key))
            if size.open:
                told(task, server, f"{size.open:g}/s", opened(url, sent, size.open, size.seconds, key))


def main(size: argparse.Namespace) -> None:
    os.environ |= {"OMP_NUM_THREADS": str(size.threads), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    print("| task | server | clients | requests/s | p50, ms | p99, ms |\n|---|---|---|---|---|---|")
    for task in size.tasks:
        with tempfile.TemporaryDirectory(prefix="llmray-bench-") as folder:
            compare(task, size, Path(folder)) if task in ENGINE else layers(size, Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=ROUTE, default=list(ROUTE))
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--size", default="base", help="of the presets bert-… and marian-…")
    parser.add_argument("--open", type=float, help="also an open loop of so many requests a second")
    parser.add_argument("--data", help="folder with squad/ and multi30k/")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    main(parser.parse_args())
