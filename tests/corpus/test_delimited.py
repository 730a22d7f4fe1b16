"""CSV and TSV: a header and quotes; a record that does not fit is named with its line."""

import gzip

import pytest

from llmray.corpus.record import Document, Example


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\r\n"one, ""two""",x\r\n\r\n"three\nfour",y\r\n'),
        ("a.tsv", 'text\tlabel\n"one, ""two"""\tx\n"three\nfour"\ty\n'),
        ("a.csv", '\ufefftext,label\n"one, ""two""",x\n"three\nfour",y'),
    ],
)
def test_quotes_hold_delimiters_and_lines(tmp_path, gather, name, content):
    expected = [{"text": 'one, "two"', "label": "x"}, {"text": "three\nfour", "label": "y"}]
    (tmp_path / name).write_bytes(content.encode())
    assert gather(Example, path=str(tmp_path / name)) == (expected, [])
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert gather(Example, path=str(tmp_path / f"{name}.gz")) == (expected, [])


def test_values_stay_as_they_are_written(tmp_path, gather):
    (tmp_path / "a.csv").write_text("text,label\n007,1\nNA,true\n")
    found, _ = gather(Example, path=str(tmp_path / "a.csv"), where={"label": ["1", "true"]})
    assert [row["text"] for row in found] == ["007", "NA"]


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        (b"b,y,z", "wrong row", "3 fields where the header has 2"),
        (b"b", "wrong row", "1 fields where the header has 2"),
        (b'"b"b,y', "not CSV", "not CSV: ',' expected after '\"', in line 4"),
        (b"\xff,y", "not UTF-8", "not UTF-8: invalid start byte at byte 0"),
        (b'"b\n\xff",y', "not UTF-8", "not UTF-8: invalid start byte at byte 2"),
    ],
)
def test_a_bad_record_among_good_ones(tmp_path, gather, line, kind, reason):
    """The first good record takes two lines, so the bad one begins on the fourth."""
    (tmp_path / "a.csv").write_bytes(b'text,label\n"a\na",x\n' + line + b"\nc,z\n")
    found, (bad,) = gather(Example, path=str(tmp_path / "a.csv"))
    assert [row["text"] for row in found] == ["a\na", "c"]
    assert (bad.where, bad.kind, bad.reason) == (f"{tmp_path}/a.csv, line 4", kind, reason)
    assert kind == "not CSV" or bad.record.startswith('["')


def test_an_open_quote_does_not_take_the_rest(tmp_path, gather, monkeypatch):
    """It takes at most `FIELD_CHARS`; here lines 2 to 4."""
    monkeypatch.setattr("llmray.corpus.delimited.FIELD_CHARS", 20)
    (tmp_path / "a.csv").write_text('text\n"a\nbbbbbbbbbb\ncccccccccc\nd\n')
    found, (bad,) = gather(Document, path=str(tmp_path / "a.csv"))
    assert found == [{"text": "d"}]
    assert bad.where.endswith("line 2")
    assert "field larger than field limit (20), in line 4" in bad.reason


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"text,text\na,b\n", "wrong column"),
        (b"te\xffxt\na\n", "not UTF-8"),
        (b"text\n", "empty file"),
        (b"", "empty file"),
    ],
)
def test_a_header_that_names_nothing(tmp_path, gather, content, kind):
    (tmp_path / "a.csv").write_bytes(content)
    found, (bad,) = gather(Document, path=str(tmp_path / "a.csv"))
    assert (found, bad.kind) == ([], kind)


def test_a_file_cut_short(tmp_path, gather):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text\na\nb\n")[:-8])
    found, (bad,) = gather(Document, path=str(tmp_path / "a.csv.gz"))
    assert [row["text"] for row in found] == ["a", "b"]
    assert (bad.where, bad.kind) == (f"{tmp_path}/a.csv.gz, after line 3", "damaged file")


def test_real_tables(shared_data, gather):
    cases = shared_data / "bias" / "hatecheck" / "test_suite_cases.csv"
    found, bad = gather(Example, path=str(cases), columns={"text": "test_case", "label": "label_gold"})
    assert (len(found), bad) == (3728, [])
