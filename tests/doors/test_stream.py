"""Sources stream through a real Ray, in the same order every time, and errors come out as our own."""

import json

import pytest

from llmray.corpus.record import Document, Pair
from llmray.job.data import Source, Tokenizer
from llmray.job.errors import DataError, StoreError
from llmray.job.load import load
from llmray.store.journal import Progress
from llmray.stream.batches import batches
from llmray.stream.datasets import dataset, encoded, features, train_tokenizer
from llmray.stream.errors import surfaced
from llmray.stream.prepare import prepare
from llmray.tasks import make
from llmray.tasks.base import Processor

pytestmark = pytest.mark.usefixtures("ray_cluster")
SHAPES = (Source(path="builtin:shapes?rows=2500"),)


def test_records_of_all_sources_in_order(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"d{i}"}) + "\n" for i in range(5)))
    sources = (Source(path=str(tmp_path / "a.jsonl")), Source(path="builtin:shapes?rows=10"))
    texts = [row["text"] for row in dataset(sources, Document).take_all()]
    assert len(texts) == 15
    assert texts[:5] == [f"d{i}" for i in range(5)]


def test_an_error_in_a_task_names_file_and_line(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{nope\n')
    with pytest.raises(DataError, match=r"bad\.jsonl, line 2: not JSON"), surfaced():
        dataset((Source(path=str(tmp_path / "bad.jsonl")),), Document).take_all()


def test_two_splits_share_the_rows_and_repeat_their_order():
    tokenizer = train_tokenizer(SHAPES, Pair, Tokenizer(vocab_size=400, sample_rows=200))
    task = make(load({"task": "translation"}).task, Processor(tokenizer))
    seen = []
    for _ in range(2):
        rows = encoded(dataset(SHAPES, Pair), task)
        rows.context.execution_options.preserve_order = True
        whole = [b["input_ids"].sum().item() for b in batches(rows.iterator(), task, 100, epochs=1)]
        resumed = [b["input_ids"].sum().item() for b in batches(rows.iterator(), task, 100, epochs=1, skip=3)]
        assert resumed == whole[3:]
        seen.append(whole)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 25


def test_prepare_writes_once_and_feeds_training(tmp_path):
    job = load(
        {"task": {"name": "causal_lm", "seq_len": 32}, "data": {"train": SHAPES[0].path}, "output": str(tmp_path)}
    )
    made = prepare(job, Progress.silent())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert sum(shard["rows"] for shard in manifest["shards"]) == made.rows
    assert made.tokens > 31 * (made.rows - 10)
    assert prepare(job, Progress.silent()) == made
    from transformers import AutoTokenizer

    task = make(job.task, Processor(AutoTokenizer.from_pretrained(tmp_path / "tokenizer")))
    assert features((Source(path=str(tmp_path)),), task).count() == made.rows
    with pytest.raises(StoreError, match="differs in task"):
        prepare(load(job, ["task.seq_len=64"]), Progress.silent())
    other = make(load({"task": "masked_lm"}).task, task.processor)
    with pytest.raises(DataError, match="was prepared for the task"):
        features((Source(path=str(tmp_path)),), other)
