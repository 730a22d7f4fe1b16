"""Damage is a value: reading goes on after it where it can, and nothing is lost without a word."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmray.corpus.damage import DamageError, cut, shown
from llmray.corpus.record import Bad, Document, Pair, Question
from llmray.corpus.source import read, shards
from llmray.job.data import Source
from llmray.job.errors import DataError


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def told(bad: list[Bad], folder: object) -> list[tuple[str, str]]:
    return [(one.where.removeprefix(f"{folder}/"), one.kind) for one in bad]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"text": ', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "wrong row"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"txt": "a"}', "wrong column"),
        (b'{"text": null}', "not text"),
        (b'{"text": "a\\ud800"}', "not text"),
    ],
)
def test_reading_goes_on_after_a_bad_line(tmp_path, gather, line, kind):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' + line + b'\n{"text": "three"}\n')
    found, bad = gather(Document, path=str(tmp_path / "a.jsonl"))
    assert [row["text"] for row in found] == ["one", "three"]
    assert told(bad, tmp_path) == [("a.jsonl, line 2", kind)]
    assert bad[0].record == line.decode("utf-8", "backslashreplace")[:16384]


def test_without_a_taker_the_first_is_raised(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n[1]\n[2]\n')
    (shard,) = shards(Source(path=str(tmp_path / "a.jsonl")))
    with pytest.raises(DataError) as caught:
        list(read(shard, Document))
    assert str(caught.value) == f"{tmp_path}/a.jsonl, line 2: a row is a JSON object; found list"


def test_a_limit_counts_records_only(tmp_path, gather):
    (tmp_path / "a.jsonl").write_text('[1]\n{"text": "a"}\n[2]\n{"text": "b"}\n[3]\n')
    found, bad = gather(Document, path=str(tmp_path / "a.jsonl"), limit=2)
    assert [row["text"] for row in found] == ["a", "b"]
    assert [one.where[-6:] for one in bad] == ["line 1", "line 3"]


def test_where_judges_before_anything_else(tmp_path, gather):
    """A row that is not wanted cannot be bad; one that is, is kept by `where` though nothing comes of it."""
    (tmp_path / "a.jsonl").write_text('{"text": null, "kind": 1}\n{"text": null, "kind": 2}\n{"text": "a"}\n')
    found, bad = gather(Document, path=str(tmp_path / "a.jsonl"), where={"kind": 2})
    assert found == []
    assert told(bad, tmp_path) == [("a.jsonl, line 2", "not text"), ("a.jsonl, line 3", "wrong column")]


@pytest.mark.parametrize(
    ("suffix", "pack", "kept"),
    [(".gz", gzip.compress, 7000), (".bz2", bz2.compress, 0), (".xz", lzma.compress, 7000), (".zst", zstd, 0)],
)
def test_what_came_before_a_cut_is_kept(tmp_path, gather, suffix, pack, kept):
    """bz2 and zstd give what one block of them holds, here all of it, at once or not at all."""
    path = tmp_path / f"a.jsonl{suffix}"
    whole = b"".join(json.dumps({"text": f"{i * i}"}).encode() + b"\n" for i in range(9000))
    path.write_bytes(pack(whole)[: -len(pack(whole)) // 8])
    found, bad = gather(Document, path=str(path))
    assert [row["text"] for row in found] == [f"{i * i}" for i in range(len(found))]
    assert len(found) >= kept
    assert told(bad, tmp_path) == [(f"a.jsonl{suffix}, after line {len(found)}", "damaged file")]


def test_one_damaged_file_among_others(tmp_path, gather):
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "b.jsonl").write_bytes(b"")
    (tmp_path / "c.jsonl").write_text('{"text": "c"}\n')
    found, bad = gather(Document, path=str(tmp_path))
    assert found == [{"text": "c"}]
    assert told(bad, tmp_path) == [("a.jsonl.gz, after line 0", "damaged file"), ("b.jsonl", "empty file")]


def test_a_bad_line_parts_a_document(tmp_path, gather):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xff\nthree\n")
    found, bad = gather(Document, path=str(tmp_path / "a.txt"))
    assert [row["text"] for row in found] == ["one\ntwo", "three"]
    assert told(bad, tmp_path) == [("a.txt, line 3", "not UTF-8")]


def test_parallel_text_stays_in_step(tmp_path, gather):
    (tmp_path / "t.en").write_bytes(b"one\n\xff\nthree\nfour\n")
    (tmp_path / "t.de").write_bytes(b"eins\nzwei\ndrei\n")
    found, bad = gather(Pair, path=str(tmp_path / "t.en"), target=str(tmp_path / "t.de"))
    assert [(row["source"], row["target"]) for row in found] == [("one", "eins"), ("three", "drei")]
    assert told(bad, tmp_path) == [("t.en, line 2", "not UTF-8"), ("t.de", "unequal length")]
    assert "ends after 3 lines, its partner" in bad[1].reason


def test_a_cut_ends_parallel_text_with_one_word(tmp_path, gather):
    (tmp_path / "t.en.gz").write_bytes(gzip.compress(b"one\ntwo\n")[:-8])
    (tmp_path / "t.de").write_bytes(b"eins\nzwei\ndrei\n")
    found, bad = gather(Pair, path=str(tmp_path / "t.en.gz"), target=str(tmp_path / "t.de"))
    assert len(found) == 2
    assert told(bad, tmp_path) == [("t.en.gz, after line 2", "damaged file")]


def test_a_damaged_row_group_leaves_the_others(tmp_path, gather):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"text": [f"{i} {'x' * i}" for i in range(30)]}), path, row_group_size=10)
    second = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = second.dictionary_page_offset or second.data_page_offset
    data[start : start + second.total_compressed_size] = b"\xff" * second.total_compressed_size
    path.write_bytes(data)
    found, bad = gather(Document, path=str(path))
    assert [int(row["text"].split()[0]) for row in found] == [*range(10), *range(20, 30)]
    assert told(bad, tmp_path) == [("p.parquet, after row 10", "damaged file")]
    path.write_bytes(b"PAR1")
    assert told(gather(Document, path=str(path))[1], tmp_path) == [("p.parquet", "damaged file")]


def test_parquet_with_bytes_that_are_no_text(tmp_path, gather):
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "p.parquet")
    found, bad = gather(Document, path=str(tmp_path / "p.parquet"))
    assert found == [{"text": "a"}, {"text": "c"}]
    assert told(bad, tmp_path) == [("p.parquet, row 2", "not UTF-8")]


def test_answers_in_no_form(tmp_path, gather):
    rows = [{"context": "Ann sings.", "question": "Who?", "answers": answers} for answers in (["Ann"], [])]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, bad = gather(Question, path=str(tmp_path / "q.jsonl"))
    assert [row["answers"] for row in found] == [[]]
    assert told(bad, tmp_path) == [("q.jsonl, line 1", "bad answers")]


def test_a_template_that_does_not_fit_one_row(tmp_path, gather):
    (tmp_path / "a.jsonl").write_text('{"said": {"en": "a"}}\n{"said": "b"}\n{"said": {"en": "c"}}\n')
    found, bad = gather(Document, path=str(tmp_path / "a.jsonl"), columns={"text": "{said[en]}"})
    assert [row["text"] for row in found] == ["a", "c"]
    assert told(bad, tmp_path) == [("a.jsonl, line 2", "wrong column")]


@pytest.mark.parametrize("template", ["{", "{}", "{0}", "{a}}"])
def test_a_template_that_can_be_none_is_the_jobs_error(tmp_path, gather, template):
    (tmp_path / "a.jsonl").write_text('{"a": "b"}\n')
    with pytest.raises(DataError, match=r"columns.text: .* is not a template of columns"):
        gather(Document, path=str(tmp_path / "a.jsonl"), columns={"text": template})


def test_storage_that_fails_is_no_damage():
    for error in (PermissionError("denied"), TimeoutError("slow"), OSError(5, "Input/output error")):
        with pytest.raises(DataError, match=r"a\.gz: cannot be read: "):
            cut("a.gz", "line 1", error)
    assert cut("a.gz", "line 1", OSError("Invalid data stream")).kind == "damaged file"


def test_what_is_shown_of_a_record():
    assert shown({"image": b"123", "caption": "größer"}) == '{"image": "(3 bytes)", "caption": "größer"}'
    assert shown(b"a\xff") == "a\\xff"
    assert len(shown("x" * 100_000)) == 16384


def test_damage_travels_whole():
    damage = DamageError("a.jsonl, line 1", "not JSON", "not JSON: x")
    assert damage.bad == Bad("a.jsonl, line 1", "not JSON", "not JSON: x")
    assert str(damage) == "a.jsonl, line 1: not JSON: x"
