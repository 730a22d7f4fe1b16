"""Data sets in the hub's layout are streamed part by part, from a folder and from a stand-in of the hub."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmray.corpus.hub import Address, parse_uri
from llmray.corpus.record import Document, Picture, Question
from llmray.corpus.source import shards
from llmray.job.data import Source
from llmray.job.errors import DataError


@pytest.fixture
def texts(tmp_path):
    """Splits `train` of two files and `test` of one."""
    for name, count in (("train-0", 2), ("train-1", 3), ("test", 1)):
        lines = [json.dumps({"text": f"{name}-{i}", "kind": i}) for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_a_shard_a_file(texts, gather):
    assert len(shards(Source(path=f"hf:{texts}"))) == 2
    found, bad = gather(Document, path=f"hf:{texts}?split=train")
    assert [row["text"] for row in found] == ["train-0-0", "train-0-1", "train-1-0", "train-1-1", "train-1-2"]
    assert bad == []
    assert gather(Document, path=f"hf:{texts}?split=test")[0] == [{"text": "test-0"}]


def test_a_relative_folder_limit_and_where(texts, gather, monkeypatch):
    monkeypatch.chdir(texts.parent)
    path = f"hf:./{texts.name}?split=train"
    assert len(gather(Document, path=path, limit=3)[0]) == 3
    assert [row["text"] for row in gather(Document, path=path, where={"kind": 1})[0]] == ["train-0-1", "train-1-1"]


def test_damage_ends_its_part(texts, gather):
    (texts / "train-0.jsonl").write_text('{"text": "a", "kind": 1}\n{"text": \n')
    found, (bad,) = gather(Document, path=f"hf:{texts}", limit=100)
    assert [row["text"] for row in found] == ["train-1-0", "train-1-1", "train-1-2"]
    assert (bad.where, bad.kind) == (f"hf:{texts}, part 0, after row 0", "damaged file")


def test_questions_and_their_forms(tmp_path, gather):
    answers = {"text": ["Ann"], "answer_start": [0]}
    pq.write_table(
        pa.table({"id": ["1"], "context": ["Ann sings."], "question": ["Who?"], "answers": [answers]}),
        tmp_path / "train.parquet",
    )
    (row,) = gather(Question, path=f"hf:{tmp_path}")[0]
    assert row["answers"] == [{"text": "Ann", "start": 0}]


def test_pictures_as_the_files_hold_them(tmp_path, gather, png):
    (tmp_path / "x.png").write_bytes(png)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "x.png", "text": "red"}\n')
    assert gather(Picture, path=f"hf:{tmp_path}") == ([{"image": png, "captions": ["red"]}], [])


def test_addresses():
    assert parse_uri("hf:a/b?split=test&config=en&revision=v1") == Address("a/b", "test", "en", "v1")
    assert parse_uri("hf:./folder") == Address("./folder", "train", None, None)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("hf:a/b?spilt=train", "unknown key 'spilt'; allowed: split, config, revision"),
        ("hf:a/b?split=", "split is empty"),
        ("hf:?split=train", "names no data set"),
    ],
)
def test_addresses_that_are_none(path, words):
    with pytest.raises(DataError, match=words):
        parse_uri(path)


def test_what_is_not_there(texts, gather):
    for path, words in (
        (f"hf:{texts}?split=dev", "Bad split: dev"),
        (f"hf:{texts}?config=de", "'de' not found"),
        (f"hf:{texts}/none", "no such data set here or on the hub"),
    ):
        with pytest.raises(DataError, match=words):
            gather(Document, path=path)
    with pytest.raises(DataError, match="a data set of the hub takes no images; remove"):
        gather(Picture, path=f"hf:{texts}", images=str(texts))


INFO = "/api/datasets/own/set"
COMMIT = "1" * 40
FILES = {"train-0.jsonl": b'{"text": "a"}\n{"text": "b"}\n', "train-1.jsonl": b'{"text": "c"}\n'}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as a public data set `own/set` needs (https://huggingface.co/docs/hub/api)."""

    def do_GET(self) -> None:
        path, name = self.path.partition("?")[0], self.path.rpartition("/")[2]
        if path == f"{INFO}/tree/{COMMIT}":
            tree = [{"type": "file", "oid": n, "size": len(data), "path": n} for n, data in FILES.items()]
            self.answer(json.dumps(tree).encode())
        elif path in (INFO, f"{INFO}/revision/v1", f"{INFO}/revision/{COMMIT}"):
            self.answer(json.dumps({"id": "own/set", "sha": COMMIT}).encode())
        elif path.startswith("/datasets/own/set/resolve/") and name in FILES:
            self.answer(FILES[name])
        else:
            missing = "EntryNotFound" if "datasets/own/set/" in path else "RepoNotFound"
            self.answer(b"{}", 404, {"X-Error-Code": missing})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        kept = {"Content-Length": str(len(body)), "ETag": '"1"', "X-Repo-Commit": COMMIT}
        for key, value in (kept | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


READ = """
import sys
from llmray.corpus.record import Document
from llmray.corpus.source import read, shards
from llmray.job.errors import DataError
from llmray.job.data import Source
for path in sys.argv[1:]:
    try:
        print([c["text"] for shard in shards(Source(path=path)) for c in read(shard, Document)])
    except DataError as error:
        print(error)
"""


def test_the_hub(hub, tmp_path):
    """In a process of its own, since the hub's address is settled when its client is imported."""
    paths = ["hf:own/set?split=train", "hf:own/set?revision=v1", "hf:own/other"]
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    first, second, third = done.stdout.splitlines()
    assert first == second == "[['a', 'b'], ['c']]"
    assert third.startswith("hf:own/other: no such data set here or on the hub, or it cannot be reached: ")
