"""A shard of documents leaves the clean ones in files, every other one with the reason, and copies are found later."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llmray.corpus.contamination import Contamination
from llmray.corpus.copies import found_in
from llmray.corpus.personal import Finding
from llmray.corpus.refine import KEYS, Quarantine, Refine
from llmray.corpus.source import shards
from llmray.job.data import Clean, Personal, Source
from llmray.job.errors import DataError

ASKED = "the quick brown fox jumps over the lazy dog and then it runs far away from here"
TEXTS = ["One red star.", "", f"They say {ASKED} .", "Ask joe@example.com now.", "one  RED star!", "Two\x00 stars."]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS) + "{broken\n")
    return Source(path=str(path))


def refined(source: Source, tmp_path: Path, clean: Clean, quarantine: Quarantine | None):
    work = Refine(clean, Contamination([ASKED]), str(tmp_path / "documents"))
    (shard,) = shards(source)
    return work(shard, "name", quarantine)


def test_every_record_is_kept_dropped_or_quarantined(source: Source, tmp_path: Path) -> None:
    quarantine = Quarantine(str(tmp_path / "bad.jsonl"))
    files, tally = refined(source, tmp_path, Clean(personal=Personal()), quarantine)
    assert files == [{"name": "name-0.parquet", "rows": 4}]
    kept = pq.read_table(tmp_path / "documents" / "name-0.parquet")
    assert kept["text"].to_pylist() == ["One red star.", "Ask <EMAIL> now.", "one  RED star!", "Two stars."]
    assert kept.schema.field(KEYS).type.list_size == 15
    assert (tally.read, tally.kept) == (7, 4)
    assert tally.dropped == {"empty": 1, "evaluation text": 1}
    assert tally.quarantined == {"not JSON": 1}
    assert tally.personal == {"email": 1}
    tally.require_whole("a")
    (bad,) = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert bad["where"].endswith("a.jsonl, line 7")
    assert bad["record"] == "{broken"


def test_personal_data_may_drop_the_document(source: Source, tmp_path: Path) -> None:
    clean = Clean(personal=Personal(action="drop"), duplicates=None)
    _, tally = refined(source, tmp_path, clean, Quarantine(str(tmp_path / "bad.jsonl")))
    assert tally.dropped["personal data"] == 1


def test_names_are_found_by_a_recogniser(source: Source, tmp_path: Path) -> None:
    def names(text: str) -> list[Finding]:
        return [Finding("name", at, at + 3) for at in [text.find("fox")] if at >= 0]

    clean = Clean(personal=Personal(action="drop"), duplicates=None)
    work = Refine(clean, Contamination([]), str(tmp_path / "documents"), names)
    (shard,) = shards(source)
    _, tally = work(shard, "name", Quarantine(str(tmp_path / "bad.jsonl")))
    assert tally.personal == {"email": 1, "name": 1}
    assert tally.dropped["personal data"] == 2


def test_without_a_quarantine_the_first_damage_is_an_error(source: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl, line 7: not JSON"):
        refined(source, tmp_path, Clean(), None)


def test_copies_are_found_across_files_and_the_first_stays(source: Source, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    for name in "ab":
        Refine(Clean(), Contamination([]), str(folder))(shards(source)[0], name, Quarantine(str(tmp_path / "bad")))
    copies = found_in([str(folder / "a-0.parquet"), str(folder / "b-0.parquet")])
    texts = pq.read_table(folder / "a-0.parquet")["text"].to_pylist()
    assert copies.by_file == [(texts.index("one  RED star!"),), tuple(range(len(texts)))]
    assert copies.clusters()[0] == {"copies": 3, "text": "One red star."}
