"""WebDataset's tars are streamed; their damage is told with the sample it came after."""

import gzip
import io
import json
import tarfile

import pytest

from llmray.corpus.record import Document, Example, Picture


def tar(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize(("name", "pack"), [("a.tar", bytes), ("a.tar.gz", gzip.compress), ("a.tgz", gzip.compress)])
def test_pictures_and_their_texts(tmp_path, gather, png, name, pack):
    members = [
        *(("./d/1.5.png", png), ("./d/1.txt", b"five\n"), ("./d/1.json", b'{"lang": "en"}')),
        *(("d/2.png", png), ("d/2.json", b'{"captions": ["a", "b"], "lang": "de"}')),
        *(("d/", b""), ("README", b"words"), ("d/._2.png", b"what macOS adds")),
    ]
    (tmp_path / name).write_bytes(pack(tar(*members)))
    found, bad = gather(Picture, path=str(tmp_path / name))
    assert found == [{"image": png, "captions": ["five"]}, {"image": png, "captions": ["a", "b"]}]
    assert bad == []
    assert len(gather(Picture, path=str(tmp_path / name), where={"lang": "de"})[0]) == 1


def test_texts_alone(tmp_path, gather):
    (tmp_path / "a.tar").write_bytes(tar(("1.txt", b"one"), ("1.cls", b"0"), ("2.txt", b"two"), ("2.cls", b"1")))
    assert gather(Document, path=str(tmp_path / "a.tar"))[0] == [{"text": "one"}, {"text": "two"}]
    found, _ = gather(Example, path=str(tmp_path / "a.tar"), columns={"label": "cls"})
    assert found[1] == {"text": "two", "label": "1"}


def test_shards_by_glob_and_braces(tmp_path, gather):
    for number in range(3):
        (tmp_path / f"s-{number:03}.tar").write_bytes(tar((f"{number}.txt", str(number).encode())))
    assert len(gather(Document, path=str(tmp_path / "s-*.tar"))[0]) == 3
    found, _ = gather(Document, path=str(tmp_path / "s-{001..002}.tar"))
    assert [row["text"] for row in found] == ["1", "2"]


@pytest.mark.parametrize(
    ("members", "where", "kind"),
    [
        ([("2.txt", b"\xff")], "sample 2.txt", "not UTF-8"),
        ([("2.json", b"{")], "sample 2.json", "not JSON"),
        ([("2.txt", b"a"), ("2.txt", b"b")], "sample 2", "wrong row"),
        ([("2.bin", b"a")], "sample 2", "wrong column"),
    ],
)
def test_a_bad_sample_among_good_ones(tmp_path, gather, members, where, kind):
    (tmp_path / "a.tar").write_bytes(tar(("1.txt", b"one"), *members, ("3.txt", b"three")))
    found, (bad,) = gather(Document, path=str(tmp_path / "a.tar"))
    assert [row["text"] for row in found] == ["one", "three"]
    assert (bad.where, bad.kind) == (f"{tmp_path}/a.tar, {where}", kind)


def test_what_is_no_picture(tmp_path, gather, png):
    (tmp_path / "a.tar").write_bytes(tar(("1.jpg", b"words"), ("1.txt", b"a"), ("2.jpg", png), ("2.txt", b"b")))
    found, (bad,) = gather(Picture, path=str(tmp_path / "a.tar"))
    assert (len(found), bad.kind) == (1, "not a picture")


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda data: data[:1700], 1),  # within the second sample's content, which begins at 1,536
        (lambda data: data[:1024], 0),  # between members: what ends a tar is missing
        (lambda data: data[:1300], 0),  # within a header
        (lambda data: data[:1024] + b"\xff" * 512 + data[1536:], 0),  # a header that is none
        (lambda data: gzip.compress(data)[:-40], None),
        (lambda data: b"no tar" * 100, 0),
        (lambda data: b"", 0),
    ],
)
def test_what_came_before_damage_is_kept(tmp_path, gather, damage, kept):
    """A sample that the damage may have cut is not given."""
    (tmp_path / "a.tar").write_bytes(damage(tar(("1.txt", b"one"), ("2.txt", b"two" * 100), ("3.txt", b"3"))))
    found, bad = gather(Document, path=str(tmp_path / "a.tar"))
    assert [one.kind for one in bad] == ["damaged file"]
    assert bad[0].reason.startswith("damaged or cut short: ")
    assert kept is None or len(found) == kept


def test_json_that_is_no_object_is_a_column(tmp_path, gather):
    (tmp_path / "a.tar").write_bytes(tar(("1.json", json.dumps("words").encode())))
    assert gather(Document, path=str(tmp_path / "a.tar"), columns={"text": "json"})[0] == [{"text": "words"}]
