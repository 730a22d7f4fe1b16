"""`prepare` cleans, packs and stores a corpus through a real Ray, loses nothing, and goes on after an interruption."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llmray.job.errors import DataError, JobError
from llmray.job.load import load
from llmray.job.schema import Job
from llmray.store.journal import Progress
from llmray.stream.prepare import prepare

pytestmark = pytest.mark.usefixtures("ray_cluster")

WORDS = ("star", "circle", "square", "triangle", "red", "green", "blue", "small", "large", "above", "below", "near")


def documents(first: int, count: int) -> list[str]:
    """Texts that share no run of five words."""
    return [" ".join(f"{word}{number}" for word in WORDS) + "." for number in range(first, first + count)]


def job_of(tmp_path: Path, **data: Any) -> Job:
    base = {"train": [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], "tokenizer": {"vocab_size": 400}}
    task = {"name": "causal_lm", "seq_len": 32, "packing": "documents"}
    return load({"task": task, "data": base | data, "output": str(tmp_path / "store")})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """60 documents in two files, of which three in the second are copies and one line is damaged."""
    first, second = documents(0, 40), documents(40, 20)
    for name, texts, more in (("a", first, ""), ("b", [*second, first[0], first[1].upper(), first[2]], "{broken\n")):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines + more)
    return tmp_path


def manifest(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "store" / "manifest.json").read_text())


def test_nothing_is_lost_without_a_reason(corpus: Path) -> None:
    result = prepare(job_of(corpus, clean={}, on_error="skip"), Progress.silent())
    assert (result.documents, result.dropped, result.quarantined) == (60, 3, 1)
    first, second = (source["tally"] for source in manifest(corpus)["sources"])
    assert (first["read"], first["kept"], second["read"], second["kept"]) == (40, 40, 24, 20)
    assert second["dropped"] == {"copy of another document": 3}
    assert second["quarantined"] == {"not JSON": 1}
    assert {c["copies"] for c in manifest(corpus)["clusters"]} == {1}
    tokenizer = manifest(corpus)["tokenizer"]
    assert (tokenizer["vocabulary"], tokenizer["unknown"]) == (400, 0)
    assert 2 < tokenizer["bytes_per_token"] < 10
    page = (corpus / "store" / "prepare.html").read_text()
    assert f"{tokenizer['bytes_per_token']:.2f}" in page
    assert "copy of another document" in page
    assert "not JSON" in page
    tables = [pq.read_table(path) for path in sorted((corpus / "store" / "blocks").glob("*.parquet"))]
    lengths = [sum(row) for table in tables for row in table["lengths"].to_pylist()]
    assert sum(lengths) == result.tokens
    assert max(lengths) <= 32


def test_damage_stops_the_run_unless_it_may_skip(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"b\.jsonl, line 24: not JSON: [^\n]*\n.* data\.on_error=skip"):
        prepare(job_of(corpus, clean={}), Progress.silent())
    assert not (corpus / "store" / "manifest.json").exists()


def test_finished_parts_are_not_done_again(corpus: Path) -> None:
    """As after a kill in the midst of the second file: the first file's part is left as it is."""
    job = job_of(corpus, on_error="skip")
    prepare(job, Progress.silent())
    written, parts = manifest(corpus)["shards"], corpus / "store" / "parts"
    (corpus / "store" / "manifest.json").unlink()
    first, second = sorted(parts.glob("*.json"))
    second.unlink()
    before = first.stat().st_mtime_ns
    prepare(job, Progress.silent())
    assert first.stat().st_mtime_ns == before
    assert second.exists()
    assert manifest(corpus)["shards"] == written


def test_clean_documents_that_are_gone_are_made_again_where_they_are_needed(corpus: Path) -> None:
    job, store = job_of(corpus, clean={}, on_error="skip"), corpus / "store"
    first = prepare(job, Progress.silent())
    shutil.rmtree(store / "documents")
    assert prepare(job, Progress.silent()) == first
    assert not (store / "documents").exists()
    (store / "manifest.json").unlink()
    next((store / "blocks").iterdir()).unlink()
    assert prepare(job, Progress.silent()).tokens == first.tokens


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_second_run_mends_what_is_damaged_and_no_more(corpus: Path, damage: str) -> None:
    job = job_of(corpus, clean={}, on_error="skip")
    first = prepare(job, Progress.silent())
    written = manifest(corpus)
    files = {path: path.read_bytes() for path in (corpus / "store" / "blocks").iterdir()}
    assert len(files) == 2
    broken, whole = sorted(files)
    broken.unlink() if damage == "gone" else broken.write_bytes(files[broken][:-1])
    before = whole.stat().st_mtime_ns
    assert prepare(job, Progress.silent()).tokens == first.tokens
    assert {path: path.read_bytes() for path in (corpus / "store" / "blocks").iterdir()} == files
    assert whole.stat().st_mtime_ns == before
    assert manifest(corpus)["shards"] == written["shards"]
    assert prepare(job, Progress.silent()).seconds == manifest(corpus)["result"]["seconds"]


def test_only_documents_are_cleaned(corpus: Path) -> None:
    with pytest.raises(JobError, match=r"data\.clean: cleans documents"):
        load(job_of(corpus, clean={}), ["task=qa"])


def test_a_crawl_and_a_dump_are_prepared_together(tmp_path: Path, shared_data: Path) -> None:
    sources = [str(shared_data / "crawl" / "commoncrawl_2020"), str(shared_data / "wiki")]
    clean = {"languages": ["en"], "quality": {}, "evaluation": str(shared_data / "squad" / "dev-v1.1.json.gz")}
    result = prepare(job_of(tmp_path, train=sources, clean=clean), Progress.silent())
    crawl, wiki = (source["tally"] for source in manifest(tmp_path)["sources"])
    assert crawl["read"] == 17
    assert crawl["quarantined"] == {"damaged file": 1}
    assert wiki["read"] == 106
    assert wiki["dropped"]["evaluation text"] == 5
    blocks = [pq.read_table(path) for path in (tmp_path / "store" / "blocks").glob("*.parquet")]
    filled = sum(sum(row) for table in blocks for row in table["lengths"].to_pylist())
    assert filled == result.tokens > 0.99 * 32 * result.rows
