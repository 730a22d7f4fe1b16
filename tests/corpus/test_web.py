"""Crawls are read record by record; a damaged one is told with its place, and those around it are kept."""

import bz2
import gzip
import io

import fsspec
import pyarrow as pa
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from llmray.corpus.record import Bad
from llmray.corpus.rows import Row
from llmray.corpus.web import crawl
from llmray.job.errors import DataError

HTML = "text/html; charset=utf-8"


def record(url: str, body: bytes, mime: str = HTML, kind: str = "response", packed: bool = True) -> bytes:
    """One record, in its own gzip member where it is packed."""
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=packed)
    http = StatusAndHeaders("200 OK", [("Content-Type", mime)], protocol="HTTP/1.1") if kind == "response" else None
    dated = {"WARC-Date": "2024-05-18T01:58:10Z"}
    made = writer.create_warc_record(
        url, kind, io.BytesIO(body), http_headers=http, warc_headers_dict=dated, warc_content_type="" if http else mime
    )
    writer.write_record(made)
    return file.getvalue()


def page(name: str, packed: bool = True) -> bytes:
    return record(f"http://{name}/", f"<html><body><p>Page {name}.</p></body></html>".encode(), packed=packed)


def read(path: object) -> tuple[list[Row], list[Bad]]:
    found = list(crawl(str(path)))
    return [one for one in found if not isinstance(one, Bad)], [one for one in found if isinstance(one, Bad)]


def texts(rows: list[Row]) -> list[str]:
    return [row["text"] for _, row in rows]


def told(bad: list[Bad]) -> list[tuple[str, str]]:
    return [(one.where.rpartition("/")[2], one.kind) for one in bad]


@pytest.mark.parametrize(("name", "packed"), [("a.warc.gz", True), ("a.warc", False)])
def test_pages_are_rows_and_notes_of_the_crawler_are_not(tmp_path, name, packed):
    records = [
        record("http://a/", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request", "request", packed),
        page("a", packed),
        record("http://a/", b"fetchTimeMs: 5\r\n", "application/warc-fields", "metadata", packed),
        record("metadata://tool/log", b"all is well", "text/plain", "resource", packed),
        record("http://a/cat.png", b"\x89PNG\r\n\x1a\n", "image/png", "response", packed),
        record("http://a/notes", "größer".encode(), "text/plain", "conversion", packed),
    ]
    (tmp_path / name).write_bytes(b"".join(records))
    rows, bad = read(tmp_path / name)
    assert bad == []
    assert rows[0] == (
        f"{tmp_path / name}, {f'byte {len(records[0])}' if packed else 'record 2'}",
        {
            "text": "Page a.",
            "url": "http://a/",
            "date": "2024-05-18T01:58:10Z",
            "mime": "text/html",
            "status": 200,
            "language": None,
        },
    )
    assert [(row["text"], row["mime"], row["status"]) for _, row in rows[1:]] == [
        ("", "image/png", 200),
        ("größer", "text/plain", None),
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_one_flipped_byte_costs_one_page(tmp_path, packed):
    pages = [bytearray(page(name, packed)) for name in "abc"]
    pages[1][-40] ^= 1
    (tmp_path / "a.warc.gz").write_bytes(b"".join(pages))
    rows, bad = read(tmp_path / "a.warc.gz")
    assert texts(rows) == ["Page a.", "Page c."]
    place, kind = (f"byte {len(pages[0])}", "damaged file") if packed else ("record 2", "bad digest")
    assert told(bad) == [(f"a.warc.gz, {place}", kind)]


def test_a_checksum_that_fails_is_no_page_though_all_of_it_was_read(tmp_path):
    pages = [bytearray(page(name)) for name in "abc"]
    pages[1][-8] ^= 1  # of the member's CRC
    (tmp_path / "a.warc.gz").write_bytes(b"".join(pages))
    rows, bad = read(tmp_path / "a.warc.gz")
    assert texts(rows) == ["Page a.", "Page c."]
    assert "incorrect data check" in bad[0].reason


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_what_came_before_a_cut_is_kept(tmp_path, packed, kept):
    last = page("b", packed)
    (tmp_path / "a.warc.gz").write_bytes(page("a", packed) + last[: int(kept * len(last))])
    rows, bad = read(tmp_path / "a.warc.gz")
    assert texts(rows) == ["Page a."]
    assert len(bad) == 1
    assert bad[0].kind in ("damaged file", "bad header")


def test_a_gap_between_members_and_padding_after_them(tmp_path):
    first = page("a")
    (tmp_path / "a.warc.gz").write_bytes(first + b"what is this?" + page("b") + bytes(1000))
    rows, bad = read(tmp_path / "a.warc.gz")
    assert texts(rows) == ["Page a.", "Page b."]
    assert told(bad) == [(f"a.warc.gz, byte {len(first)}", "damaged file")]


def test_a_damaged_header_and_what_belongs_to_it_is_one_bad(tmp_path):
    damaged = page("b", packed=False).replace(b"WARC/1.0", b"WARP/1.0")
    (tmp_path / "a.warc").write_bytes(page("a", packed=False) + damaged + page("c", packed=False))
    rows, bad = read(tmp_path / "a.warc")
    assert texts(rows) == ["Page a.", "Page c."]
    assert [one.kind for one in bad] == ["bad header"]


@pytest.mark.parametrize(
    ("header", "instead", "reason"),
    [
        (b"Content-Length: ", b"Content-Length: x", "which is no number"),
        (b"WARC-Type: response", b"WARC-Typo: response", "has no WARC-Type"),
        (b"Digest: sha1:", b"Digest: sha1:\xff", "is no digest"),
        (b"Digest: sha1:", b"Digest: sha7:", "unknown hash algorithm"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1", "without HTTP's status"),
    ],
)
def test_headers_that_cannot_be(tmp_path, header, instead, reason):
    whole = page("b", packed=False)
    if header.startswith(b"HTTP"):  # of what the digests speak
        whole = b"\r\n".join(line for line in whole.split(b"\r\n") if b"Digest" not in line)
        instead = instead.ljust(len(header))
    damaged = gzip.compress(whole.replace(header, instead))
    (tmp_path / "a.warc.gz").write_bytes(page("a") + damaged + page("c"))
    rows, bad = read(tmp_path / "a.warc.gz")
    assert texts(rows) == ["Page a.", "Page c."]
    assert len(bad) == 1
    assert reason in bad[0].reason


def test_one_member_for_all_records_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(page("a", packed=False) + page("b", packed=False)) + page("c"))
    rows, bad = read(tmp_path / "a.warc.gz")
    assert texts(rows) == ["Page c."]
    assert "`warcio recompress` parts them" in bad[0].reason


def test_pages_beyond_bounds(tmp_path):
    deep = b"<html><body>" + b"<div>" * 600 + b"x"
    large = b"x" * ((8 << 20) + 1)
    (tmp_path / "a.warc.gz").write_bytes(record("http://a/", deep) + record("http://b/", large) + page("c"))
    rows, bad = read(tmp_path / "a.warc.gz")
    assert texts(rows) == ["Page c."]
    assert [one.kind for one in bad] == ["nested too deep", "too large"]


def test_nonsense_is_one_bad(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(b"one\ntwo\nthree\n" * 1000)
    assert told(read(tmp_path / "a.warc.gz")[1]) == [("a.warc.gz, record 1", "bad header")]


def test_other_compression_and_other_storage(tmp_path):
    whole = page("a", packed=False) + page("b", packed=False)
    for name, data in (("a.warc.bz2", bz2.compress(whole)), ("a.warc.zst", pa.compress(whole, "zstd", asbytes=True))):
        (tmp_path / name).write_bytes(data)
        assert texts(read(tmp_path / name)[0]) == ["Page a.", "Page b."]
    (tmp_path / "a.warc.bz2").write_bytes(bz2.compress(whole)[:-9])
    assert told(read(tmp_path / "a.warc.bz2")[1]) == [("a.warc.bz2, after its beginning", "damaged file")]
    fsspec.filesystem("memory").pipe("/crawl/a.warc.gz", page("a") + page("b"))
    assert texts(read("memory://crawl/a.warc.gz")[0]) == ["Page a.", "Page b."]
    with pytest.raises(DataError, match=r"no\.warc\.gz: cannot be read: no such file"):
        read(tmp_path / "no.warc.gz")


def test_common_crawl(shared_data):
    folder = shared_data / "crawl" / "commoncrawl_2020"
    rows, bad = read(folder / "warcfile.warc.gz")
    assert bad == []
    assert len(rows) == 16
    assert all(row["text"] for _, row in rows)
    assert "узкоспециализированное предприятие" in rows[1][1]["text"]  # windows-1251, as its server says
    assert "耐磨板特价销售" in rows[4][1]["text"]  # gb2312, as only the page says
    rows, bad = read(folder / "clipped.warc.gz")
    assert rows == []
    assert told(bad) == [("clipped.warc.gz, byte 0", "damaged file")]


def test_one_page_as_warc_and_wet(shared_data):
    folder = shared_data / "crawl" / "commoncrawl_whirlwind"
    ((_, html),), _ = read(folder / "whirlwind.warc.gz")
    ((_, wet),), _ = read(folder / "whirlwind.warc.wet.gz")
    sentence = "Escopete ye citato en as Relaciones Topográficas de los pueblos de Espanya"
    assert sentence in html["text"]
    assert sentence in wet["text"]
    assert len(html["text"]) < len(wet["text"]) / 2  # without menus
    assert (wet["mime"], wet["language"], html["url"]) == ("text/plain", "spa", wet["url"])


EDGE_CASES: dict[str, tuple[int, list[str]]] = {
    "bad.arc": (0, ["bad header", "no status"]),
    "example-bad-non-chunked.warc.gz": (0, ["shared gzip member"]),
    "example-bad.warc.gz.bad": (0, ["shared gzip member"]),
    "example-digest.warc": (0, ["bad digest"]),
    "example-iana.org-chunked.warc": (1, []),
    "example-resource.warc.gz": (1, []),
    "example-space-in-target-uri.warc.gz": (1, []),
    "example-space-in-url.arc": (1, []),
    "example-trunc.warc": (0, ["bad digest"]),
    "example-wget-bad-target-uri.warc.gz": (1, []),
    "example-wrong-chunks.warc.gz": (0, ["damaged file", "bad header"]),
    "example.arc": (1, []),
    "example.arc.gz": (1, []),
    "example.warc": (1, []),
    "example.warc.gz": (1, []),
    "post-test.warc.gz": (3, []),
}


def test_every_edge_case_is_read_or_reported(shared_data):
    folder = shared_data / "crawl" / "warcio_edge_cases"
    found = {path.name: read(path) for path in folder.iterdir()}
    assert {name: (len(rows), [one.kind for one in bad]) for name, (rows, bad) in found.items()} == EDGE_CASES
    for name in ("example.warc", "example.warc.gz", "example.arc", "example.arc.gz", "example-space-in-url.arc"):
        ((_, row),), _ = found[name]
        assert row["text"].startswith(
            "Example Domain\n\nThis domain is established to be used for illustrative examples"
        )
    assert found["example.arc"][0][0][1]["date"] == "2014-02-16T05:02:21Z"


def test_lengths_that_lie_are_no_crash(shared_data):
    rows, bad = read(shared_data / "crawl" / "malformed" / "sample.warc.txt")
    assert rows == []
    assert [one.kind for one in bad] == ["bad header", "bad digest", "bad digest"]
