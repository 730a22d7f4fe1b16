"""Pictures come from folders, tars, Parquet and COCO's form; a missing or damaged one is named with its row."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from llmray.corpus.record import Picture
from llmray.corpus.source import read, shards
from llmray.job.data import Source
from llmray.job.errors import DataError


def pictures(**source: object) -> list[tuple[bytes, list[str]]]:
    found = []
    for shard in shards(Source.model_validate(source)):
        for columns in read(shard, Picture):
            found += list(zip(columns["image"], columns["captions"], strict=True))
    return found


def complaint(**source: object) -> str:
    with pytest.raises(DataError) as caught:
        pictures(**source)
    return str(caught.value)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A row `c.jsonl` and its picture in the folder `img`, in `img.tar` and in `img.tar.gz`."""
    (tmp_path / "c.jsonl").write_text('{"sentence": "a red thing", "id": "7"}\n')
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "x-7.png").write_bytes(png())
    with tarfile.open(tmp_path / "img.tar", "w") as tar:
        tar.add(tmp_path / "img" / "x-7.png", "./x-7.png")
    (tmp_path / "img.tar.gz").write_bytes(gzip.compress((tmp_path / "img.tar").read_bytes()))
    return tmp_path


def source(corpus: Path, images: str, image: str = "x-{id}.png") -> dict[str, object]:
    columns = {"caption": "sentence", "image": image}
    return {"path": str(corpus / "c.jsonl"), "images": str(corpus / images), "columns": columns}


@pytest.mark.parametrize("images", ["img", "img.tar", "img.tar.gz"])
def test_a_folder_or_a_tar(corpus, images):
    assert pictures(**source(corpus, images)) == [(png(), ["a red thing"])]
    assert "c.jsonl, line 1: no picture 'y-7.png' in" in complaint(**source(corpus, images, "y-{id}.png"))


def test_what_a_tar_holds_is_said(corpus):
    assert "which holds 'x-7.png'" in complaint(**source(corpus, "img.tar", "img/x-{id}.png"))


def test_no_way_out_of_the_folder(corpus):
    assert "would lie outside" in complaint(**source(corpus, "img", "../img/x-{id}.png"))


def test_places_that_are_none(corpus):
    assert "no.tar: `images` names a folder or tar that does not exist" in complaint(**source(corpus, "no.tar"))
    (corpus / "bad.tar").write_bytes(b"no tar")
    assert "bad.tar: not a tar that can be read" in complaint(**source(corpus, "bad.tar"))
    (corpus / "cut.tar").write_bytes((corpus / "img.tar").read_bytes()[:600])
    assert "cut.tar: " in complaint(**source(corpus, "cut.tar"))
    (corpus / "c.jsonl").write_text('{"caption": "a", "image": "x.png"}\n')
    assert "say where they are with `images`" in complaint(path=str(corpus / "c.jsonl"))


def test_what_is_no_picture(corpus):
    (corpus / "img" / "x-7.png").write_bytes(b"words")
    assert "c.jsonl, line 1: 'x-7.png' is not a picture" in complaint(**source(corpus, "img"))


def test_several_captions(corpus):
    (corpus / "c.jsonl").write_text(json.dumps({"captions": ["a", "b"], "image": "x-7.png"}))
    assert pictures(path=str(corpus / "c.jsonl"), images=str(corpus / "img")) == [(png(), ["a", "b"])]
    (corpus / "c.jsonl").write_text(json.dumps({"captions": "a", "image": "x-7.png"}))
    said = complaint(path=str(corpus / "c.jsonl"), images=str(corpus / "img"))
    assert "captions is a list of texts; found 'a'; for one text use `caption`" in said


def test_pictures_within_parquet(tmp_path):
    """As bytes, and in the form of Hugging Face's image column."""
    for name, image in (("a", png()), ("b", {"bytes": png(), "path": None})):
        pq.write_table(pa.table({"caption": ["c"], "image": [image]}), tmp_path / f"{name}.parquet")
    assert pictures(path=str(tmp_path)) == [(png(), ["c"])] * 2


def test_coco(corpus):
    tree = {
        "images": [{"id": 1, "file_name": "x-7.png"}, {"id": 2, "file_name": "no caption.png"}],
        "annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}],
    }
    (corpus / "captions.json").write_text(json.dumps(tree))
    assert pictures(path=str(corpus / "captions.json"), images=str(corpus / "img")) == [(png(), ["a", "b"])]


def test_real_pictures(shared_data):
    nlvr = pictures(
        path=str(shared_data / "images" / "nlvr" / "dev.jsonl.gz"),
        images=str(shared_data / "images" / "nlvr" / "dev_images.tar"),
        columns={"caption": "sentence", "image": "images/{directory}/dev-{identifier}-0.png"},
        where={"label": "true"},
    )
    assert len(nlvr) == 547
    coco = shared_data / "images" / "coco_mini"
    photos = pictures(
        path=str(coco / "annotations" / "captions_val2017.json"),
        images=str(coco / "val2017.tar"),
        columns={"image": "val2017/{file_name}"},
    )
    assert len(photos) == 25
    assert all(len(captions) >= 5 for _, captions in photos)
