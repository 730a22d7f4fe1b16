"""A path stands for files: braces, globs, folders; what is not there or not allowed is named with the way out."""

from collections.abc import Iterator

import boto3
import httpx
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from llmray.corpus.find import files
from llmray.corpus.record import Document
from llmray.job.data import Source
from llmray.job.errors import DataError


def names(path: object, **more: object) -> list[str]:
    return [found.rpartition("/")[2] for found in files(Source.model_validate({"path": str(path)} | more))]


def test_braces(tmp_path):
    for name in ("a-08.jsonl", "a-09.jsonl", "a-10.jsonl", "b.txt", "a{1}.txt"):
        (tmp_path / name).touch()
    assert names(tmp_path / "a-{09..10}.jsonl") == ["a-09.jsonl", "a-10.jsonl"]
    assert names(tmp_path / "{b.txt,a-0*.jsonl}") == ["b.txt", "a-08.jsonl", "a-09.jsonl"]
    assert names(tmp_path / "a{1}.txt") == ["a{1}.txt"]
    with pytest.raises(DataError, match=r"a-07\.jsonl: nothing to read there.*did you mean .*a-"):
        names(tmp_path / "a-{07..09}.jsonl")


@pytest.mark.parametrize(
    "name",
    [
        *("a.jsonl.gz", "A.CSV", "a.tsv.zst", "a.tgz", "a.tar.xz", "a.warc.gz", "a.wet.gz", "a.arc", "a.xml.bz2"),
        "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    ],
)
def test_a_folder_gives_what_can_be_read(tmp_path, name):
    for file in (name, "README.md", "model.bin.gz", "p.parquet.gz", "x.png"):
        (tmp_path / file).touch()
    assert names(tmp_path) == [name]


def test_packed_pictures_beside_the_rows_that_name_them(tmp_path):
    for name in ("c.jsonl", "img.tar"):
        (tmp_path / name).touch()
    assert names(tmp_path) == ["c.jsonl", "img.tar"]
    assert names(tmp_path, images=str(tmp_path / "img.tar")) == ["c.jsonl"]


def test_a_glob_and_a_file_are_taken_at_their_word(tmp_path):
    for name in ("a.jsonl", "b.docx"):
        (tmp_path / name).touch()
    for path in ("*", "b.docx"):
        with pytest.raises(DataError, match=r"b\.docx: unknown kind of file; allowed: \.parquet, and \.jsonl"):
            names(tmp_path / path)


@pytest.fixture
def s3(monkeypatch) -> Iterator[str]:
    """An object store that holds `s3://data/x.jsonl`: its address."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for key, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{key}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="data")
    client.put_object(Bucket="data", Key="x.jsonl", Body=b'{"text": "a"}\n')
    yield address
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_an_object_store(s3, gather):
    assert gather(Document, path="s3://data/*.jsonl") == ([{"text": "a"}], [])
    with pytest.raises(DataError, match=r"s3://dat/x\.jsonl: nothing to read there: no such bucket or file"):
        gather(Document, path="s3://dat/x.jsonl")
    httpx.post(f"{s3}/moto-api/reset-auth", content=b"0")  # from here on moto asks who one is
    try:
        for path in ("s3://data/x.jsonl", "s3://data/*.jsonl", "s3://data"):
            with pytest.raises(DataError, match="cannot be read: no permission; check its rights, or"):
                gather(Document, path=path)
    finally:
        httpx.post(f"{s3}/moto-api/reset-auth", content=b"inf")


def test_real_dumps_and_crawls_are_known_by_their_names(shared_data, gather):
    """The excerpt of Wikipedia has 206 pages, 100 of them redirects."""
    found, bad = gather(Document, path=str(shared_data / "wiki"))
    assert (len(found), bad) == (106, [])
    found, bad = gather(Document, path=str(shared_data / "crawl" / "commoncrawl_whirlwind" / "*.warc.gz"))
    assert (len(found), bad) == (1, [])
