"""Every kind of file becomes the same records; every damaged one is named with the place of the damage."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from llmray.corpus.record import Document, Pair, Picture, Question, Record
from llmray.corpus.source import read, shards
from llmray.job.errors import DataError
from llmray.job.schema import Source


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


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
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


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    return file.getvalue()


def test_captions_with_pictures_in_a_tar_or_a_folder(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"sentence": "a red thing", "id": "7"}\n')
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "x-7.png").write_bytes(png())
    with tarfile.open(tmp_path / "img.tar", "w") as tar:
        tar.add(tmp_path / "img" / "x-7.png", "x-7.png")
    for images in ("img", "img.tar"):
        source = {"path": str(tmp_path / "c.jsonl"), "images": str(tmp_path / images),
                  "columns": {"caption": "sentence", "image": "x-{id}.png"}}  # fmt: skip
        assert rows(Picture, **source) == [{"image": png(), "captions": ["a red thing"]}]
        source["columns"]["image"] = "y-{id}.png"
        assert "row 1: no picture 'y-7.png'" in complaint(Picture, **source)


def test_builtin_shapes_is_split_without_loss():
    assert len(shards(Source(path="builtin:shapes?rows=4500"))) == 3
    assert len(rows(Pair, path="builtin:shapes?rows=4500")) == 4500
    assert len(rows(Pair, path="builtin:shapes?rows=4500", limit=10)) == 10


def test_nothing_there(tmp_path):
    assert str(tmp_path / "no.jsonl") in complaint(Document, path=str(tmp_path / "no.jsonl"))
    assert "nothing to read there" in complaint(Document, path=str(tmp_path / "*.txt"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1: a row is a JSON object; found list"),
        ("a.jsonl", b'{"txt": "a"}\n', "a.jsonl, row 1: no column 'text'; found: txt; did you mean 'txt'?"),
        ("a.jsonl", b"", "a.jsonl: the file is empty"),
        ("a.txt", b"ok\n\xff\xfe\n", "a.txt, line 2: not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 5000)[:60], "damaged or cut short"),
        ("a.jsonl.gz", b"not gzip at all", "damaged or cut short"),
        ("a.parquet", b"PAR1", "not a Parquet file that can be read"),
        ("a.docx", b"x", "unknown kind of file; allowed: .jsonl"),
    ],
)
def test_damaged_files_are_named_with_the_place(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in complaint(Document, path=str(tmp_path / name))


def test_squad_that_is_not(tmp_path):
    (tmp_path / "s.json").write_text('{"rows": []}')
    assert "not in SQuAD's form" in complaint(Question, path=str(tmp_path / "s.json"))
    (tmp_path / "s.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert "rows of JSON are `.jsonl`" in complaint(Question, path=str(tmp_path / "s.json"))


def test_parallel_files_of_unequal_length(tmp_path):
    (tmp_path / "t.en").write_text("one\ntwo\n")
    (tmp_path / "t.de").write_text("eins\n")
    text = complaint(Pair, path=str(tmp_path / "t.en"), target=str(tmp_path / "t.de"))
    assert "t.de: ends after 1 lines, its partner" in text


def test_pictures_without_a_place(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"caption": "a", "image": "x.png"}\n')
    assert "say where they are with `images`" in complaint(Picture, path=str(tmp_path / "c.jsonl"))


def test_real_sources(shared_data):
    squad = rows(Question, path=str(shared_data / "squad" / "dev-v1.1.json.gz"))
    assert len(squad) == 10_570
    assert all(a["text"] == q["context"][a["start"] : a["start"] + len(a["text"])] for q in squad for a in q["answers"])
    multi = {lang: str(shared_data / "multi30k" / f"test_2016_flickr.{lang}.gz") for lang in ("en", "de")}
    assert len(rows(Pair, path=multi["en"], target=multi["de"])) == 1000
    assert len(rows(Document, path=str(shared_data / "lm" / "english_novels" / "valid.jsonl.xz"))) == 4
    nlvr = rows(
        Picture,
        path=str(shared_data / "images" / "nlvr" / "dev.jsonl.gz"),
        images=str(shared_data / "images" / "nlvr" / "dev_images.tar"),
        columns={"caption": "sentence", "image": "images/{directory}/dev-{identifier}-0.png"},
        where={"label": "true"},
    )
    assert len(nlvr) == 547
