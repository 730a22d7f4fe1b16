"""Every kind of file becomes the same records; every damaged one is named with the place of the damage."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmray.corpus.record import Document, Pair, Question, Record
from llmray.corpus.source import read, shards
from llmray.job.data import Source
from llmray.job.errors import DataError


def rows(record: type[Record], **source: object) -> list[dict]:
    found = []
    for shard in shards(Source.model_validate(source)):
        for columns in read(shard, record):
            found += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return found


def complaint(record: type[Record], **source: object) -> str:
    with pytest.raises(DataError) as caught:
        rows(record, **source)
    return str(caught.value)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd)],
)
def test_json_lines_compressed_or_not(tmp_path, suffix, pack):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack('{"text": "größer"}\n\n{"text": "b"}\n'.encode()))
    assert [row["text"] for row in rows(Document, path=str(path))] == ["größer", "b"]


def test_byte_order_mark_and_carriage_returns_are_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\n\r\nthree\r\n".encode())
    assert [row["text"] for row in rows(Document, path=str(path))] == ["one\ntwo", "three"]


def test_folder_glob_limit_and_where(tmp_path):
    for name, count in (("a", 2), ("b", 3)):
        lines = [json.dumps({"text": f"{name}{i}", "kind": i % 2}) for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    assert len(rows(Document, path=str(tmp_path))) == 5
    assert len(rows(Document, path=str(tmp_path / "*.jsonl"), limit=3)) == 3
    assert [r["text"] for r in rows(Document, path=str(tmp_path), where={"kind": "1"})] == ["a1", "b1"]


def test_columns_map_and_fill_templates(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"title": "T", "body": "B"}\n')
    assert rows(Document, path=str(path), columns={"text": "body"}) == [{"text": "B"}]
    assert rows(Document, path=str(path), columns={"text": "{title}: {body}"}) == [{"text": "T: B"}]


def test_parquet(tmp_path):
    pq.write_table(pa.table({"source": ["a", "b"], "target": ["c", "d"]}), tmp_path / "p.parquet")
    assert rows(Pair, path=str(tmp_path / "p.parquet"))[1] == {"source": "b", "target": "d"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"txt": "body"}, "columns: no column of ours is called 'txt'; Document has text"),
        ({"text": "{bdy}"}, "line 1: no column 'bdy'; found: body; did you mean 'body'?"),
        ({"text": "{body"}, "columns.text: '{body' is not a template of columns"),
    ],
)
def test_columns_that_cannot_be(tmp_path, columns, words):
    (tmp_path / "a.jsonl").write_text('{"body": "B"}\n')
    assert words in complaint(Document, path=str(tmp_path / "a.jsonl"), columns=columns)


def test_where_speaks_yaml_and_says_what_it_found(tmp_path):
    lines = [{"text": "a", "ok": True, "n": 1}, {"text": "b", "ok": False, "n": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    path = str(tmp_path / "a.jsonl")
    for where in ({"ok": True}, {"ok": "true"}, {"n": 1}, {"n": ["1", "7"]}, {"ok": True, "n": 1}):
        assert [row["text"] for row in rows(Document, path=path, where=where)] == ["a"]
    assert "a.jsonl: `where` keeps no row; found there: n: '1', '2'" in complaint(Document, path=path, where={"n": 3})
    assert "no column 'kind'; found: text, ok, n" in complaint(Document, path=path, where={"kind": "x"})


def test_a_large_parquet_file_is_split_by_row_groups(tmp_path, monkeypatch):
    path = str(tmp_path / "p.parquet")
    monkeypatch.setitem(shards.__globals__, "PARQUET_SHARD_BYTES", 300)
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(100)]}), path, row_group_size=10)
    assert 1 < len(shards(Source(path=path))) < 10
    assert [row["text"] for row in rows(Document, path=path)] == [f"row {i}" for i in range(100)]
    pq.write_table(pa.table({"text": ["a"] * 29 + [None]}), path, row_group_size=10)
    assert "p.parquet, row 30: text is text" in complaint(Document, path=path)


def test_batches_end_at_a_size_too(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": "x" * 600_000}) for _ in range(3)))
    (shard,) = shards(Source(path=str(tmp_path / "a.jsonl")))
    assert [len(columns["text"]) for columns in read(shard, Document)] == [2, 1]


def test_text_without_blank_lines_is_cut(tmp_path):
    text = f"{'y' * 999}\n" * 2500
    (tmp_path / "a.txt").write_text(text)
    texts = [row["text"] for row in rows(Document, path=str(tmp_path / "a.txt"))]
    assert len(texts) == 3
    assert "\n".join(texts) + "\n" == text


def test_parallel_text(tmp_path):
    (tmp_path / "t.en").write_text("one\ntwo\n")
    (tmp_path / "t.de").write_text("eins\nzwei\n")
    found = rows(Pair, path=str(tmp_path / "t.en"), target=str(tmp_path / "t.de"))
    assert found == [{"source": "one", "target": "eins"}, {"source": "two", "target": "zwei"}]


def squad_file(folder, **change):
    question = {"id": "q1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]} | change
    tree = {"data": [{"title": "T", "paragraphs": [{"context": "Ann sings.", "qas": [question]}]}]}
    (folder / "s.json").write_text(json.dumps(tree))
    return str(folder / "s.json")


def test_squad_with_and_without_answers(tmp_path):
    found = rows(Question, path=squad_file(tmp_path))
    assert found == [
        {"id": "q1", "context": "Ann sings.", "question": "Who?", "answers": [{"text": "Ann", "start": 0}]}
    ]
    assert rows(Question, path=squad_file(tmp_path, answers=[], is_impossible=True))[0]["answers"] == []
    assert rows(Question, path=squad_file(tmp_path), where={"title": ["U", "T"]}) == found


def test_builtin_shapes_is_split_without_loss():
    assert len(shards(Source(path="builtin:shapes?rows=4500"))) == 5
    assert len(rows(Pair, path="builtin:shapes?rows=4500")) == 4500
    assert len(rows(Pair, path="builtin:shapes?rows=4500", limit=10)) == 10


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "Ann", "start": 0}],
        [{"text": "Ann", "answer_start": 0}],
        {"text": ["Ann"], "answer_start": [0]},
    ],
)
def test_answers_in_every_common_form(tmp_path, answers):
    (tmp_path / "q.jsonl").write_text(json.dumps({"context": "Ann sings.", "question": "Who?", "answers": answers}))
    (row,) = rows(Question, path=str(tmp_path / "q.jsonl"))
    assert row["answers"] == [{"text": "Ann", "start": 0}]
    assert row["id"].endswith("q.jsonl, line 1")


def test_answers_in_no_form(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"context": "Ann sings.", "question": "Who?", "answers": ["Ann"]}\n')
    assert "answers is a list of {text, start}; found ['Ann']" in complaint(Question, path=str(tmp_path / "q.jsonl"))


def test_the_builtin_corpus_takes_no_filter():
    assert "the built-in corpus takes no where" in complaint(Document, path="builtin:shapes", where={"a": "b"})


def test_parallel_text_is_two_files(tmp_path):
    for name in ("a.en", "b.en"):
        (tmp_path / name).write_text("one\n")
    assert "no.de: nothing to read" in complaint(Pair, path=str(tmp_path / "a.en"), target=str(tmp_path / "no.de"))
    many = complaint(Pair, path=str(tmp_path / "*.en"), target=str(tmp_path / "a.en"))
    assert "parallel text is one file and its `target`; found 2" in many


def test_a_prepared_store_holds_no_records(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    assert "a prepared store holds a task's encoded blocks" in complaint(Document, path=str(tmp_path))


def test_nothing_there(tmp_path):
    (tmp_path / "corpus.jsonl").write_text("{}")
    assert "did you mean" in complaint(Document, path=str(tmp_path / "corpsu.jsonl"))
    assert str(tmp_path / "no.jsonl") in complaint(Document, path=str(tmp_path / "no.jsonl"))
    assert "nothing to read there" in complaint(Document, path=str(tmp_path / "*.txt"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1: a row is a JSON object; found list"),
        ("a.jsonl", b'{"txt": "a"}\n', "a.jsonl, line 1: no column 'text'; found: txt; did you mean 'txt'?"),
        ("a.jsonl", b"", "a.jsonl: the file is empty"),
        ("a.txt", b"ok\n\xff\xfe\n", "a.txt, line 2: not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 5000)[:60], "damaged or cut short"),
        ("a.jsonl.gz", b"not gzip at all", "a.jsonl.gz, after line 0: damaged or cut short"),
        ("a.jsonl.bz2", bz2.compress(b'{"text": "a"}\n' * 9000)[:-9], "damaged or cut short"),
        ("a.jsonl.xz", lzma.compress(b'{"text": "a"}\n' * 9000)[:-9], "damaged or cut short"),
        ("a.jsonl.zst", zstd(b'{"text": "a"}\n' * 9000)[:-3], "damaged or cut short"),
        ("a.jsonl", b'{"text": null}\n', "a.jsonl, line 1: text is text; found nothing (null)"),
        ("a.jsonl", b'{"text": "a\\ud800"}\n', "text is not text: half a surrogate pair at character 1"),
        ("a.parquet", b"PAR1", "not a Parquet file that can be read"),
        ("a.docx", b"x", "a.docx: unknown kind of file; allowed: .parquet, and .jsonl"),
    ],
)
def test_damaged_files_are_named_with_the_place(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in complaint(Document, path=str(tmp_path / name))


def test_squad_that_is_not(tmp_path):
    (tmp_path / "s.json").write_text('{"rows": []}')
    assert "neither in SQuAD's form" in complaint(Question, path=str(tmp_path / "s.json"))
    (tmp_path / "s.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert "rows of JSON are `.jsonl`" in complaint(Question, path=str(tmp_path / "s.json"))


def test_parallel_files_of_unequal_length(tmp_path):
    (tmp_path / "t.en").write_text("one\ntwo\n")
    (tmp_path / "t.de").write_text("eins\n")
    text = complaint(Pair, path=str(tmp_path / "t.en"), target=str(tmp_path / "t.de"))
    assert "t.de: ends after 1 lines, its partner" in text


def test_real_sources(shared_data):
    squad = rows(Question, path=str(shared_data / "squad" / "dev-v1.1.json.gz"))
    assert len(squad) == 10_570
    assert all(a["text"] == q["context"][a["start"] : a["start"] + len(a["text"])] for q in squad for a in q["answers"])
    multi = {lang: str(shared_data / "multi30k" / f"test_2016_flickr.{lang}.gz") for lang in ("en", "de")}
    assert len(rows(Pair, path=multi["en"], target=multi["de"])) == 1000
    assert len(rows(Document, path=str(shared_data / "lm" / "english_novels" / "valid.jsonl.xz"))) == 4
