"""Blocks stream without waiting for a shard, are split among workers, stored, checked and read back."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from transformers import AutoTokenizer

from llmray.corpus.record import Document
from llmray.job.data import Source, Tokenizer
from llmray.job.errors import DataError
from llmray.job.load import load
from llmray.job.schema import Job
from llmray.store.journal import Progress
from llmray.stream.batches import batches
from llmray.stream.datasets import dataset, features, train_tokenizer
from llmray.stream.errors import surfaced
from llmray.stream.prepare import prepare
from llmray.tasks import make
from llmray.tasks.base import Processor, Task

pytestmark = pytest.mark.usefixtures("ray_cluster")


def job_of(output: Path, **sections: Any) -> Job:
    base = {
        "task": {"name": "causal_lm", "seq_len": 32},
        "data": {"train": "builtin:shapes?rows=2100", "tokenizer": {"vocab_size": 400, "sample_rows": 100}},
        "output": str(output),
    }
    return load(base | sections)


@pytest.fixture(scope="module")
def made(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Task]:
    """A prepared store, and the task that it was made for."""
    job = job_of(tmp_path_factory.mktemp("made"))
    prepare(job, Progress.silent())
    return job, make(job.task, Processor(AutoTokenizer.from_pretrained(Path(job.output, "tokenizer"))))


def ids(rows: Any, task: Task, **how: Any) -> list[list[int]]:
    return [ids for b in batches(rows.iterator(), task, 50, epochs=1, **how) for ids in b["input_ids"].tolist()]


def test_a_store_gives_the_tokens_that_streaming_would_in_fuller_blocks(made):
    job, task = made
    streamed, stored = (ids(features(s, task), task) for s in (job.data.train, (Source(path=job.output),)))
    pad = task.processor.tokenizer.pad_token_id
    assert [i for row in stored for i in row if i != pad] == [i for row in streamed for i in row if i != pad]
    assert len(stored) < len(streamed)
    manifest = json.loads(Path(job.output, "manifest.json").read_text())
    assert manifest["schema"] == {"input_ids": "list<element: int32>"}
    assert len(manifest["shards"]) == 3
    assert manifest["result"]["tokens"] == sum(shard["tokens"] for shard in manifest["shards"])


def test_the_same_job_elsewhere_gives_the_same_files(made, tmp_path):
    prepare(job_of(tmp_path), Progress.silent())
    shards = [json.loads(Path(where, "manifest.json").read_text())["shards"] for where in (made[0].output, tmp_path)]
    assert shards[0] == shards[1]


def test_a_store_is_for_its_tokenizer_alone_and_read_whole(made):
    job, task = made
    other = train_tokenizer(job.data.train, Document, Tokenizer(vocab_size=350, sample_rows=50))
    with pytest.raises(DataError, match=r"another tokenizer than the model's; set model\.tokenizer to .*/tokenizer"):
        features((Source(path=job.output),), make(job.task, Processor(other)))
    with pytest.raises(DataError, match="read whole; remove limit"):
        features((Source(path=job.output, limit=5),), task)
    with pytest.raises(DataError, match="stands alone"):
        features((Source(path=job.output), *job.data.train), task)


@pytest.mark.parametrize(("damage", "words"), [("change", "is not what was written"), ("remove", "cannot be read")])
def test_a_damaged_store_is_named(made, tmp_path, damage, words):
    job = job_of(tmp_path, data={"train": "builtin:shapes?rows=50", "tokenizer": {"vocab_size": 400}})
    prepare(job, Progress.silent())
    task = make(job.task, Processor(AutoTokenizer.from_pretrained(tmp_path / "tokenizer")))
    (file,) = (tmp_path / "blocks").iterdir()
    if damage == "change":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    else:
        file.unlink()
    with pytest.raises(DataError, match=rf"{file.name}: {words}"), surfaced():
        features((Source(path=str(tmp_path)),), task).take(1)


def test_nothing_to_prepare_is_an_error(made, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a", "kind": 1}\n')
    source = {"path": str(tmp_path / "*.jsonl"), "where": {"kind": 2}}
    job = job_of(tmp_path / "out", data={"train": source}, model={"from": made[0].output + "/tokenizer"})
    with pytest.raises(DataError, match="makes no encoded rows"):
        prepare(job, Progress.silent())
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.slow
def test_two_workers_share_every_batch_pass_after_pass(made):
    job, task = made

    @ray.remote(num_cpus=0)
    def firsts(shard: Any, count: int, skip: int) -> list[list[int]]:
        found = batches(shard, task, 16, skip=skip)
        return [next(found)["input_ids"][0].tolist() for _ in range(count)]

    rows = features(job.data.train, task)
    share = rows.count() // 2 // 16
    whole = ray.get([firsts.remote(s, share + 5, 0) for s in rows.streaming_split(2, equal=True)])
    assert [w[:5] for w in whole] == [w[share:] for w in whole]
    assert whole[0][0] != whole[1][0]
    later = ray.get([firsts.remote(s, 2, 3 * share + 2) for s in rows.streaming_split(2, equal=True)])
    assert later == [w[2:4] for w in whole]


def test_a_share_smaller_than_a_batch_is_an_error(made):
    job, task = made
    with pytest.raises(DataError, match="less than a batch"):
        next(batches(features((Source(path=job.output),), task).iterator(), task, 10**6))


def test_shuffling_reaches_across_shards_and_is_repeatable(made):
    job, task = made
    stored = (Source(path=job.output),)
    plain, *mixed = (ids(features(stored, task, rows, 7), task) for rows in (0, 10**6, 10**6))
    assert mixed[0] == mixed[1] != plain
    assert sorted(mixed[0]) == sorted(plain)
    texts = [row["text"] for row in dataset(job.data.train, Document, 2000, 7).take_all()]
    straight = [row["text"] for row in dataset(job.data.train, Document).take_all()]
    assert sorted(texts) == sorted(straight)
    assert set(texts[:1000]) != set(straight[:1000])


def test_one_long_file_flows_in_small_blocks(made, tmp_path):
    """4 MB of text in one file: the first block is ready long before the last."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{i} word" * 100}) + "\n" for i in range(6000)))
    rows = features((Source(path=str(tmp_path / "a.jsonl")),), made[1]).materialize()
    assert rows.num_blocks() > 3


def test_a_store_is_for_its_packing_alone(made):
    job, task = made
    other = load(job, ["task.packing=documents"]).task
    with pytest.raises(DataError, match=r"packing: 'contiguous' there, 'documents' here"):
        features((Source(path=job.output),), make(other, task.processor))
