"""Dumps are read as a stream: articles only, and what came before damage is kept."""

import bz2
import gzip
import tracemalloc

import pytest

from llmray.corpus.record import Bad
from llmray.corpus.rows import Row
from llmray.corpus.wiki import articles
from llmray.corpus.wikitext import plain

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11"><siteinfo><namespaces>
<namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">Datei</namespace>
<namespace key="14" case="first-letter">Kategorie</namespace></namespaces></siteinfo>"""
EXCERPT = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


def page(number: int, text: str, ns: int = 0, more: str = "") -> str:
    revision = f"<revision><id>9{number}</id><text>{text}</text></revision>"
    return f"<page><title>Page {number}</title><ns>{ns}</ns><id>{number}</id>{more}{revision}</page>"


def dump(*pages: str) -> bytes:
    return f"{HEAD}{''.join(pages)}</mediawiki>".encode()


def read(path: object) -> tuple[list[Row], list[Bad]]:
    found = list(articles(str(path)))
    return [one for one in found if not isinstance(one, Bad)], [one for one in found if isinstance(one, Bad)]


def texts(rows: list[Row]) -> list[str]:
    return [row["text"] for _, row in rows]


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".bz2", bz2.compress), (".gz", gzip.compress)])
def test_articles_compressed_or_not(tmp_path, suffix, pack):
    path = tmp_path / f"a.xml{suffix}"
    path.write_bytes(pack(dump(page(7, "''größer''"), page(8, ""))))
    assert read(path) == (
        [
            (f"{path}, page 7", {"text": "größer", "title": "Page 7", "id": "7"}),
            (f"{path}, page 8", {"text": "", "title": "Page 8", "id": "8"}),
        ],
        [],
    )


def test_redirects_and_pages_that_are_no_articles_are_passed_over(tmp_path):
    redirect = page(2, "#REDIRECT [[Page 1]]", more='<redirect title="Page 1" />')
    (tmp_path / "a.xml").write_bytes(dump(page(1, "a"), redirect, page(3, "talk", ns=1), page(4, "b")))
    assert texts(read(tmp_path / "a.xml")[0]) == ["a", "b"]


def test_the_wiki_names_its_pictures_and_categories(tmp_path):
    (tmp_path / "a.xml").write_bytes(dump(page(1, "a[[Datei:A.png]][[File:A.png]][[Kategorie:B]][[Mensch:C]]")))
    assert texts(read(tmp_path / "a.xml")[0]) == ["aMensch:C"]


def test_the_latest_revision_counts(tmp_path):
    two = page(1, "new").replace("<revision>", "<revision><id>1</id><text>old</text></revision><revision>")
    (tmp_path / "a.xml").write_bytes(dump(two, page(2, "b")))
    assert texts(read(tmp_path / "a.xml")[0]) == ["new", "b"]


def test_multistream(tmp_path):
    path = tmp_path / "a.xml.bz2"
    streams = [bz2.compress(part.encode()) for part in (HEAD, page(1, "a"), page(2, "b" * 40_000), "</mediawiki>")]
    path.write_bytes(b"".join(streams))
    rows, bad = read(path)
    assert ([len(text) for text in texts(rows)], bad) == ([1, 40_000], [])
    path.write_bytes(b"".join(streams)[:-9])
    rows, bad = read(path)
    assert [len(text) for text in texts(rows)] == [1]
    assert [(one.where, one.kind) for one in bad] == [(f"{path}, after page 1", "damaged file")]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_came_before_a_cut_is_kept(tmp_path, suffix):
    path = tmp_path / f"a.xml{suffix}"
    whole = dump(*(page(i, f"{i * i}") for i in range(2000)))
    cut = gzip.compress(whole)[:-4000] if suffix else whole[:100_000]
    path.write_bytes(cut)
    rows, bad = read(path)
    assert texts(rows) == [str(i * i) for i in range(len(rows))]
    assert len(rows) > 500
    assert [(one.where, one.kind) for one in bad] == [(f"{path}, after page {len(rows) - 1}", "damaged file")]


@pytest.mark.parametrize("content", [b"", b"no XML", b"\x1f\x8b", dump(page(1, "a")).replace(b"<title>", b"<titel>")])
def test_what_is_no_dump(tmp_path, content):
    (tmp_path / "a.xml").write_bytes(content)
    rows, bad = read(tmp_path / "a.xml")
    assert rows == []
    assert [(one.where, one.kind) for one in bad] == [(f"{tmp_path}/a.xml, after its beginning", "damaged file")]


def test_entities_are_refused_before_they_grow(tmp_path):
    grown = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "ha"}">' for i in range(10))
    (tmp_path / "a.xml").write_bytes(f"<!DOCTYPE m [{grown}]>".encode() + dump(page(1, "&e9;")))
    rows, bad = read(tmp_path / "a.xml")
    assert rows == []
    assert "EntitiesForbidden" in bad[0].reason


def test_a_page_that_opens_too_many_brackets(tmp_path):
    (tmp_path / "a.xml").write_bytes(dump(page(1, "{{a|" * 1001), page(2, "b")))
    rows, bad = read(tmp_path / "a.xml")
    assert texts(rows) == ["b"]
    assert [(one.where, one.kind) for one in bad] == [(f"{tmp_path}/a.xml, page 1", "wrong markup")]


def test_memory_does_not_grow_with_the_dump(tmp_path):
    peaks = []
    for count in (50, 500):
        (tmp_path / "a.xml").write_bytes(dump(*(page(i, "word " * 1000, ns=1) for i in range(count)), page(0, "a")))
        tracemalloc.start()
        assert len(list(articles(str(tmp_path / "a.xml")))) == 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2


def test_wikipedia(shared_data, monkeypatch):
    monkeypatch.setattr("llmray.corpus.wiki.plain", lambda text, hidden: text)  # a tenth is enough to clean
    rows, bad = read(shared_data / "wiki" / EXCERPT)
    assert (len(rows), bad) == (106, [])
    assert rows[0][1]["title"] == "Anarchism"
    cleaned = [plain(text) or "" for text in texts(rows)[::10]]
    start = (
        "Anarchism is a political philosophy that advocates self-governed societies based on voluntary institutions."
    )
    assert cleaned[0].startswith(start)
    assert "\n\nEtymology and terminology\n\nThe term anarchism is a compound word" in cleaned[0]
    for markup in ("[[", "]]", "'''", "{|", "<ref", "</", "&nbsp;", "thumb|", "colspan"):
        assert markup not in "\n".join(cleaned)
