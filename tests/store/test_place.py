"""The same calls work on a local path and on a URI."""

import resource
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
import s3fs

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


@pytest.fixture
def s3(monkeypatch) -> Iterator[str]:
    """The address of an object store that answers nobody, and no credentials."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield address
    s3fs.S3FileSystem.clear_instance_cache()


def touch(path: str) -> None:
    place.write_text(path, "")


@pytest.mark.parametrize("ask", [place.exists, place.listdir, place.read_text, place.expand, touch])
def test_a_cloud_that_gives_no_access_is_named(ask, s3, monkeypatch):
    with pytest.raises(StoreError, match=r"s3://bucket/a: the storage gives no access \(Unable to locate credentials"):
        ask("s3://bucket/a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"s3://bucket/a: the storage gives no access \(Could not connect to"):
        ask("s3://bucket/a")


def fill(path: str) -> None:
    with place.open_file(path, "wb") as file:
        file.write(bytes(1 << 20))


def replace(path: str) -> None:
    with place.replacing(path) as file:
        file.write_bytes(bytes(1 << 20))


@pytest.mark.parametrize("write", [fill, replace])
def test_no_room_is_said_and_what_was_there_is_kept(write, tmp_path):
    """A limit on the size of files stands for the end of a disk: both end a write in its midst."""
    path = tmp_path / "whole"
    if write is replace:
        path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(StoreError, match="whole: no room is left"):
            write(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if write is replace:
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/below: cannot be written"):
        place.write_text(str(tmp_path / "file" / "below"), "")
