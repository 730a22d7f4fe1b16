"""The same calls work on a local path and on a URI."""

from contextlib import suppress

import pytest

from llmray.job.errors import StoreError
from llmray.store import place


@pytest.fixture(params=["local", "memory"])
def base(request, tmp_path):
    return str(tmp_path / "with space") if request.param == "local" else f"memory://{tmp_path.name}"


def test_write_list_read_remove(base):
    place.write_text(place.join(base, "a", "one.txt"), "grün")
    place.write_text(place.join(base, "a", "two.txt"), "2")
    assert place.listdir(place.join(base, "a")) == ["one.txt", "two.txt"]
    assert place.read_text(place.join(base, "a", "one.txt")) == "grün"
    place.remove(place.join(base, "a"))
    assert not place.exists(place.join(base, "a"))


def test_expand_globs_and_folders(base):
    for name in ("x.txt", "y.txt", "z.md"):
        place.write_text(place.join(base, name), "")
    assert len(place.expand(place.join(base, "*.txt"))) == 2
    assert len(place.expand(base, [".md"])) == 1
    assert len(place.expand(place.join(base, "z.md"))) == 1
    assert place.expand(place.join(base, "none.md")) == []


def test_upload_and_local_copy(base, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    place.upload(folder, place.join(base, "copy"))
    assert (place.local_copy(place.join(base, "copy")) / "config.json").read_text() == "{}"


def test_replacing_leaves_no_temporary_file(tmp_path):
    for text in ("old", "new"):
        place.write_text(str(tmp_path / "f.txt"), text)
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_storage_without_a_driver_is_named():
    with pytest.raises(StoreError, match="nosuch://bucket"):
        place.exists("nosuch://bucket/x")


@pytest.mark.parametrize("root", ["", "memory://replaced/"])
def test_a_file_takes_its_name_once_it_is_whole(root, tmp_path):
    path = root + "a/b" if root else str(tmp_path / "a" / "b")
    with suppress(ZeroDivisionError), place.replacing(path) as file:
        file.write_text("half")
        raise ZeroDivisionError
    assert not place.exists(path)
    with place.replacing(path) as file:
        file.write_text("whole")
    assert place.read_text(path) == "whole"
    assert place.listdir(place.join(path.rpartition("/")[0])) == ["b"]
