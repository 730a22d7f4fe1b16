"""Versions are whole or absent, numbers are never shared, aliases remember what they named."""

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmray.job.errors import StoreError
from llmray.model import registry


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "llmray.json").write_text('{"task": {"name": "qa"}}')
    return str(folder)


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "registry") if request.param == "local" else f"memory://{tmp_path.name}/registry"


def test_register_find_promote_and_roll_back(root: str, model: str) -> None:
    first = registry.register(root, "reader", model, {"exact_match": 91.5})
    assert (first.version, first.task, first.metrics) == (1, "qa", {"exact_match": 91.5})
    assert first.sha256 == hashlib.sha256(b"weights").hexdigest()
    second = registry.register(root, "reader", model, {})
    assert second.version == 2
    assert registry.promote(root, "reader", 1, "champion").aliases == ("champion",)
    assert registry.promote(root, "reader", 2, "champion").version == 2
    assert registry.promote(root, "reader", 2, "champion").version == 2
    assert registry.find(root, "reader", "champion").version == 2
    assert registry.find(root, "reader", "1") == registry.find(root, "reader", "v1")
    assert registry.rollback(root, "reader", "champion").version == 1
    with pytest.raises(StoreError, match=r"reader@champion: nothing to roll back to; it has named \[1\] so far"):
        registry.rollback(root, "reader", "champion")
    assert [(v.version, v.aliases) for v in registry.versions(root)] == [(1, ("champion",)), (2, ())]


def test_a_version_without_its_note_does_not_count_and_keeps_its_number(tmp_path: Path, model: str) -> None:
    root = str(tmp_path / "registry")
    registry.register(root, "reader", model, {})
    Path(root, "reader", "v2").mkdir()
    assert [v.version for v in registry.versions(root, "reader")] == [1]
    assert registry.register(root, "reader", model, {}).version == 3


def test_the_note_is_written_last(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, seen = str(tmp_path / "registry"), []
    write = registry.place.write_text

    def watched(path: str, text: str) -> None:
        seen.append(sorted(p.name for p in Path(path).parent.iterdir()))
        write(path, text)

    monkeypatch.setattr(registry.place, "write_text", watched)
    registry.register(root, "reader", model, {})
    assert seen == [["config.json", "llmray.json", "model.safetensors"]]


def test_eight_at_once_get_eight_numbers(tmp_path: Path, model: str) -> None:
    root = str(tmp_path / "registry")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: registry.register(root, "reader", model, {"i": i}), range(8)))
    assert sorted(v.version for v in made) == list(range(1, 9))
    assert {v.version: v.metrics for v in made} == {v.version: v.metrics for v in registry.versions(root)}


def test_a_registered_version_can_be_registered_again_elsewhere(tmp_path: Path, model: str) -> None:
    root = str(tmp_path / "registry")
    first = registry.register(root, "reader", model, {"f1": 1.0})
    again = registry.register(root, "copy", first.folder, {})
    assert (again.name, again.version, again.metrics) == ("copy", 1, {})
    assert again.sha256 == first.sha256


def test_a_registry_inside_the_registered_folder_is_left_out(model: str) -> None:
    for _ in range(2):
        made = registry.register(f"{model}/registry", "reader", model, {})
    assert sorted(p.name for p in Path(made.folder).iterdir()) == [
        "config.json", "llmray.json", "model.safetensors", "version.json",
    ]  # fmt: skip


def test_weights_in_two_files_have_one_hash_that_either_changes(tmp_path: Path, model: str) -> None:
    root, hashes = str(tmp_path / "registry"), []
    for text in (b"a", b"b"):
        Path(model, "model-2.safetensors").write_bytes(text)
        hashes.append(registry.register(root, "reader", model, {}).sha256)
    assert hashes[0] != hashes[1]


def test_the_folder_follows_a_registry_that_was_moved(tmp_path: Path, model: str) -> None:
    registry.register(str(tmp_path / "registry"), "reader", model, {})
    shutil.move(tmp_path / "registry", tmp_path / "elsewhere")
    assert registry.find(str(tmp_path / "elsewhere"), "reader", "1").folder == f"{tmp_path}/elsewhere/reader/v1"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a@b", ".hidden", "two words", "../up"])
def test_names_that_would_leave_the_registry_are_refused(name: str, tmp_path: Path, model: str) -> None:
    with pytest.raises(StoreError, match="a model's name is made of letters"):
        registry.register(str(tmp_path / "registry"), name, model, {})


@pytest.mark.parametrize(("alias", "words"), [("a b", "an alias's name"), ("3", "version's number"), ("v3", "number")])
def test_aliases_that_could_not_be_told_apart_are_refused(alias: str, words: str, root: str, model: str) -> None:
    registry.register(root, "reader", model, {})
    with pytest.raises(StoreError, match=words):
        registry.promote(root, "reader", 1, alias)


def test_what_is_not_there_is_answered_with_what_is(root: str, model: str) -> None:
    with pytest.raises(StoreError, match="no model 'reader'; known: none"):
        registry.find(root, "reader", "champion")
    registry.register(root, "reader", model, {})
    registry.promote(root, "reader", 1, "champion")
    with pytest.raises(StoreError, match="no model 'rider'; known: reader"):
        registry.versions(root, "rider")
    with pytest.raises(StoreError, match=r"registry:reader@7: no such version or alias; there are: v1 \(champion\)"):
        registry.promote(root, "reader", 7, "champion")
    with pytest.raises(StoreError, match=r"it has named no version so far; aliases: champion"):
        registry.rollback(root, "reader", "candidate")


def test_an_alias_does_not_go_back_to_a_version_that_was_removed(tmp_path: Path, model: str) -> None:
    root = str(tmp_path / "registry")
    for version in (1, 2):
        registry.register(root, "reader", model, {})
        registry.promote(root, "reader", version, "champion")
    shutil.rmtree(Path(root, "reader", "v1"))
    with pytest.raises(StoreError, match=r"registry:reader@1: no such version or alias; there are: v2 \(champion\)"):
        registry.rollback(root, "reader", "champion")
    assert registry.find(root, "reader", "champion").version == 2


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", ""])
def test_a_folder_that_is_no_model_is_not_registered(missing: str, tmp_path: Path, model: str) -> None:
    (Path(model, missing).unlink if missing else lambda: shutil.rmtree(model))()
    with pytest.raises(StoreError, match=r"no model to register there \(config.json and .safetensors are needed\)"):
        registry.register(str(tmp_path / "registry"), "reader", model, {})
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("v1/version.json", "{", "version.json: cannot be read as a version"),
        ("v1/version.json", '{"name": "x"}', "version.json: cannot be read as a version"),
        ("aliases.json", "{", "aliases.json: cannot be read as aliases"),
        ("aliases.json", "[1]", "aliases.json: cannot be read as aliases"),
    ],
)
def test_a_damaged_file_is_named(file: str, text: str, words: str, tmp_path: Path, model: str) -> None:
    root = str(tmp_path / "registry")
    registry.register(root, "reader", model, {})
    Path(root, "reader", file).write_text(text)
    with pytest.raises(StoreError, match=words):
        registry.versions(root)


def test_a_model_whose_task_cannot_be_read_is_named(tmp_path: Path, model: str) -> None:
    Path(model, "llmray.json").write_text(json.dumps({"task": None}))
    with pytest.raises(StoreError, match=r"llmray\.json: does not say which task"):
        registry.register(str(tmp_path / "registry"), "reader", model, {})


def test_nearest_is_the_registry_at_or_above(tmp_path: Path) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    output = str(tmp_path / "runs" / "demo")
    assert registry.nearest(output) == f"{output}/registry"
    (tmp_path / "runs" / "registry").mkdir()
    assert registry.nearest(output) == f"{tmp_path}/runs/registry"
    assert registry.nearest(output + "/") == f"{tmp_path}/runs/registry"
    assert registry.nearest("memory://nothing/runs/a") == "memory://nothing/runs/a/registry"


def test_a_real_model_registered_is_found_whole(saved: Any, tmp_path: Path) -> None:
    made = registry.register(str(tmp_path / "registry"), "reader", saved("qa", "bert"), {})
    assert {p.name for p in Path(made.folder).iterdir()} == {
        *(p.name for p in Path(saved("qa", "bert")).iterdir()), "version.json",
    }  # fmt: skip
