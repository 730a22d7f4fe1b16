"""Versions are whole or not there; aliases remember what they named."""

import json

import pytest

from llmray.job.errors import StoreError
from llmray.model import registry
from llmray.store import place


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "llmray.json").write_text(json.dumps({"task": {"name": "qa"}}))
    return str(folder)


def test_register_promote_find_roll_back(tmp_path, model_folder):
    root = str(tmp_path / "registry")
    first = registry.register(root, "qa", model_folder, {"f1": 80.0})
    second = registry.register(root, "qa", model_folder, {"f1": 90.0})
    assert (first.version, second.version, first.task) == (1, 2, "qa")
    registry.promote(root, "qa", 1, "champion")
    registry.promote(root, "qa", 2, "champion")
    assert registry.find(root, "qa", "champion").version == 2
    assert registry.rollback(root, "qa", "champion").version == 1
    assert registry.find(root, "qa", "v2").metrics == {"f1": 90.0}
    with pytest.raises(StoreError, match="nothing to roll back to"):
        registry.rollback(root, "qa", "champion")


def test_unknown_names_say_what_there_is(tmp_path, model_folder):
    root = str(tmp_path / "registry")
    registry.register(root, "qa", model_folder, {})
    with pytest.raises(StoreError, match="no model 'qb'; known: qa"):
        registry.find(root, "qb", "champion")
    with pytest.raises(StoreError, match="there are: v1"):
        registry.find(root, "qa", "champion")


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no model to register there"):
        registry.register(str(tmp_path / "registry"), "qa", str(tmp_path), {})


def test_a_half_copied_version_does_not_count(tmp_path, model_folder):
    root = str(tmp_path / "registry")
    (tmp_path / "registry" / "qa" / "v1").mkdir(parents=True)
    assert registry.versions(root, "qa") == []
    assert registry.register(root, "qa", model_folder, {}).version == 2


def test_nearest_looks_upwards(tmp_path):
    (tmp_path / "registry").mkdir()
    assert registry.nearest(str(tmp_path / "runs" / "qa")) == place.join(str(tmp_path), "registry")
    assert registry.nearest("memory://none/runs").endswith("none/runs/registry")
