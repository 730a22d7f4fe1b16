"""What makes an application differ from the one that runs."""

from pathlib import Path

import pytest

from llmray.job.schema import Limits, Serve
from llmray.model import registry
from serve.rollout import FRONT, Plan, plan_of, plans


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    return made


def serve(model: str | Path, task: str = "qa", keys: str | None = None, **endpoint: object) -> Serve:
    return Serve.model_validate({"endpoints": [{"task": task, "model": str(model), **endpoint}], "keys": keys})


def test_the_same_job_makes_the_same_plan_and_it_survives_json(folder: Path) -> None:
    [plan] = plans(serve(folder), None, [])
    assert plans(serve(folder), None, []) == [plan]
    assert plan_of(plan.model_dump(mode="json")) == plan
    assert plan.folders == {"qa": str(folder)}


def test_other_weights_resources_keys_or_release_are_another_plan(folder: Path) -> None:
    [plan] = plans(serve(folder), None, [])
    assert plans(serve(folder, cpus=2), None, []) != [plan]
    assert plans(serve(folder, keys="/keys.json"), None, []) != [plan]
    limited = serve(folder).model_copy(update={"limits": Limits(concurrent=3)})
    assert plans(limited, None, [])[0].limits.concurrent == 3
    assert plan.model_copy(update={"release": "0.0.0"}) != plan
    (folder / "onnx").mkdir()
    (folder / "onnx" / "export.json").write_text("{}")
    [with_form] = plans(serve(folder), None, [])
    assert with_form != plan
    assert plans(serve(folder, engine="torch"), None, [])[0].forms == ""
    (folder / "model.safetensors").write_bytes(b"trained again")
    assert plans(serve(folder), None, []) != [with_form]


def test_limits_reach_the_replicas(folder: Path) -> None:
    limited = serve(folder).model_copy(update={"limits": Limits(concurrent=3)})
    assert plans(limited, None, [])[0].limits == limited.limits


def test_an_alias_is_settled_as_the_version_it_names(folder: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "registry")
    for version in (1, 2):
        registry.register(root, "shapes", str(folder), {})
        registry.promote(root, "shapes", version, "champion")
    second = plans(serve("registry:shapes@champion"), root, [])
    registry.rollback(root, "shapes", "champion")
    first = plans(serve("registry:shapes@champion"), root, [])
    assert [plan.folders["qa"].rsplit("/", 1)[1] for plan in (*first, *second)] == ["v1", "v2"]


def test_openai_s_routes_stand_before_what_generates_with_the_same_keys(folder: Path) -> None:
    chat = Plan(task="chat", route="/chat", model="talker", folders={"chat": "/talker"})
    locked = chat.model_copy(update={"keys": "/other.json"})
    assert plans(serve(folder), None, [locked])[1:] == []
    [_, front] = plans(serve(folder, "causal_lm"), None, [chat])
    assert (front.task, front.folders) == (FRONT, {"chat": "/talker", "causal_lm": str(folder)})
    assert [*plans(serve(folder, "causal_lm"), None, [locked])[1].folders] == ["causal_lm"]


@pytest.mark.parametrize("found", [None, {}, {"task": "qa", "model": "of an older release"}])
def test_what_this_release_does_not_know_has_no_plan(found: dict[str, str] | None) -> None:
    assert plan_of(found) is None


def test_the_first_of_a_task_has_its_route_and_others_are_below(folder: Path) -> None:
    ends = [{"task": "translation", "model": str(folder), "name": name} for name in ("en-de", "de-en")]
    first, second = plans(Serve.model_validate({"endpoints": ends}), None, [])
    assert (first.task, first.route) == ("translation", "/translate")
    assert (second.task, second.route) == ("translation-de-en", "/translate/de-en")
    assert second.folders == {"translation-de-en": str(folder)}
