"""Folders of captioned pictures, with metadata or with a text file beside each."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmray.corpus.record import Document, Picture
from llmray.corpus.source import shards
from llmray.job.data import Source


def metadata(folder: Path, kind: str, rows: list[dict[str, str]]) -> None:
    """Rows as `metadata.KIND`."""
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet", row_group_size=1)
    elif kind == "csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        (folder / "metadata.csv").write_text("\n".join(lines))
    else:
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("caption", ["text", "caption"])
def test_metadata_names_pictures_beside_it(tmp_path, gather, png, kind, caption):
    (tmp_path / "train" / "sub").mkdir(parents=True)
    (tmp_path / "train" / "sub" / "x.png").write_bytes(png)
    rows = [{"file_name": "sub/x.png", caption: "red"}, {"file_name": "no.png", caption: "blue"}]
    metadata(tmp_path / "train", kind, rows)
    found, (bad,) = gather(Picture, path=str(tmp_path))
    assert found == [{"image": png, "captions": ["red"]}]
    assert bad.kind == "no picture"
    assert f"no picture 'no.png' in the folder {tmp_path}/train" in bad.reason


def test_metadata_is_split_and_still_finds_its_pictures(tmp_path, gather, png, monkeypatch):
    monkeypatch.setitem(shards.__globals__, "PARQUET_SHARD_BYTES", 1)
    (tmp_path / "x.png").write_bytes(png)
    metadata(tmp_path, "parquet", [{"file_name": "x.png", "text": text} for text in "ab"])
    assert len(shards(Source(path=str(tmp_path)))) == 2
    assert [row["captions"] for row in gather(Picture, path=str(tmp_path))[0]] == [["a"], ["b"]]


def test_metadata_leads_nowhere_else(tmp_path, gather, png):
    (tmp_path / "x.png").write_bytes(png)
    (tmp_path / "in").mkdir()
    metadata(tmp_path / "in", "jsonl", [{"file_name": "../x.png", "text": "red"}])
    found, (bad,) = gather(Picture, path=str(tmp_path / "in"))
    assert (found, bad.kind) == ([], "no picture")
    assert gather(Picture, path=str(tmp_path / "in"), images=str(tmp_path), columns={"image": "x.png"})[0] == []


def test_pictures_with_captions_of_their_name(tmp_path, gather, png):
    for name, caption in (("a.JPG", b"red\n"), ("b.png", b"\xff"), ("c.png", b" \n"), ("d.png", None)):
        (tmp_path / name).write_bytes(png)
        if caption:
            (tmp_path / name).with_suffix(".txt").write_bytes(caption)
    found, bad = gather(Picture, path=str(tmp_path))
    assert found == [{"image": png, "captions": ["red"]}]
    assert [(Path(one.where.split(", ")[0]).name, one.kind) for one in bad] == [
        ("b.txt", "not UTF-8"),
        ("c.txt", "no caption"),
        ("d.png", "no caption"),
    ]
    assert gather(Document, path=str(tmp_path / "a.JPG"))[0] == [{"text": "red"}]


def test_many_pictures_make_few_shards(tmp_path, gather, png, monkeypatch):
    monkeypatch.setitem(shards.__globals__, "PICTURES_SHARD", 2)
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(png)
        (tmp_path / f"{number}.txt").write_text(str(number))
    assert [len(shard.paths) for shard in shards(Source(path=str(tmp_path)))] == [2, 2, 1]
    assert [row["captions"] for row in gather(Picture, path=str(tmp_path / "*.png"))[0]] == [[n] for n in "01234"]
    assert len(gather(Picture, path=str(tmp_path), limit=3)[0]) == 3


def test_pictures_that_other_rows_name_are_no_rows(tmp_path, gather, png):
    (tmp_path / "x.png").write_bytes(png)
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "c.jsonl").write_text('{"image": "x.png", "caption": "red"}\n')
    assert [row["text"] for row in gather(Document, path=str(tmp_path), columns={"text": "text"})[0]] == ["words"]
    found, _ = gather(Picture, path=str(tmp_path), images=str(tmp_path))
    assert found == [{"image": png, "captions": ["red"]}]
