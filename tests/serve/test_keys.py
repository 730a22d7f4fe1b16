"""API keys: who is let in, who no longer is, and that no route is forgotten."""

import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from llmray.job.errors import StoreError
from serve import front, keys, routes
from serve.batcher import Batcher
from serve.gate import Gate
from serve.shapes import PREFIXES, ROUTES, Identity


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "keys.json")


def application(name: str, ring: keys.Keys) -> FastAPI:
    if name == "openai":
        return front.build({}, Gate(ring))
    batcher = Batcher(lambda requests: [], lambda request: iter(()), max_batch_size=1, wait_s=0, max_queued=1)  # type: ignore[arg-type,return-value]
    return routes.build(name, Identity("tiny", "1", "torch", "abc"), batcher, Gate(ring))


def asked_for(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of everything that an application answers, its mounts included."""
    found = []
    for route in app.routes:
        if isinstance(route, Mount):
            found.append(("GET", f"{route.path}/anything"))
        elif isinstance(route, Route | APIRoute):
            found += [(method, re.sub("{.*?}", "x", route.path)) for method in route.methods or ()]
        else:
            raise TypeError(f"a route of an unknown kind: {route}")
    return found


@pytest.mark.parametrize("name", list(PREFIXES))
def test_every_route_of_every_application_refuses_a_wrong_key(name: str, path: str) -> None:
    secret = keys.create(path, "ana").key
    app = application(name, keys.Keys(path))
    refused = []
    with TestClient(app, root_path=PREFIXES[name]) as http:
        for method, route in [*asked_for(app), ("GET", "/no/such/route")]:
            for headers in ({}, {"authorization": f"Bearer {secret}x"}, {"authorization": secret}):
                found = http.request(method, PREFIXES[name] + route, headers=headers)
                if found.status_code == 401 and found.headers["www-authenticate"] == "Bearer":
                    refused.append(route)
                else:
                    assert (route, found.status_code) == ("/healthz", 200)
        right = {"authorization": f"Bearer {secret}"}
        assert http.get(f"{PREFIXES[name]}/openapi.json", headers=right).status_code == 200
    assert {"/docs", "/openapi.json"} < set(refused)
    assert "/" in refused or {"/completions", "/chat/completions", "/models"} < set(refused)


def test_the_message_says_what_is_wrong_in_the_form_of_the_route(path: str) -> None:
    keys.create(path, "ana")
    wrong = {"authorization": "Bearer llmray-no"}
    with TestClient(application("qa", keys.Keys(path))) as http:
        assert "An API key is needed: Authorization: Bearer KEY" in http.post("/").json()["error"]
        assert "This API key is not valid" in http.post("/", headers=wrong).json()["error"]
    with TestClient(application("openai", keys.Keys(path))) as http:
        assert http.get("/models", headers=wrong).json()["error"]["code"] == "invalid_api_key"


def test_a_revoked_key_is_refused_a_second_later_and_the_others_hold(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(keys, "monotonic", lambda: clock[0])
    ana, ben = keys.create(path, "ana"), keys.create(path, "ben")
    with TestClient(application("qa", keys.Keys(path))) as http:

        def status(key: str) -> int:
            return http.get("/openapi.json", headers={"authorization": f"Bearer {key}"}).status_code

        assert (status(ana.key), status(ben.key)) == (200, 200)
        assert keys.revoke(path, ana.id).revoked
        clock[0] += 1.1
        assert (status(ana.key), status(ben.key)) == (401, 200)
        new = keys.create(path, "cleo")
        clock[0] += 1.1
        assert status(new.key) == 200


def test_without_their_file_no_key_is_valid(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(keys, "monotonic", lambda: clock[0])
    made = keys.create(path, "ana")
    with TestClient(application("qa", keys.Keys(path))) as http:
        Path(path).unlink()
        clock[0] += 1.1
        for _ in range(2):
            found = http.get("/docs", headers={"authorization": f"Bearer {made.key}"})
            assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    with pytest.raises(StoreError, match=r"keys.json: the file of API keys cannot be read"):
        keys.Keys(path)


def test_a_key_is_kept_only_as_its_hash(path: str) -> None:
    made = keys.create(path, "ana")
    assert len(made.key) > 43
    assert made.key not in Path(path).read_text()
    assert made.key.removeprefix(keys.PREFIX) not in Path(path).read_text()
    [about] = keys.listed(path)
    assert (about.id, about.name, about.revoked) == (made.id, "ana", None)
    assert not stat.S_IMODE(Path(path).stat().st_mode) & stat.S_IWOTH


def test_keys_made_at_once_are_all_kept(path: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: keys.create(path, str(n)).id, range(16)))
    assert {each.id for each in keys.listed(path)} == set(made)


def test_no_key_no_file_and_no_such_id(path: str) -> None:
    assert keys.listed(path) == ()
    with pytest.raises(StoreError, match="holds no key 'abc'"):
        keys.revoke(path, "abc")


def test_a_damaged_file_is_named(path: str) -> None:
    Path(path).write_text(json.dumps({"keys": [{"sha256": 1}]}))
    with pytest.raises(StoreError, match=r"keys.json: is no file of API keys, or damaged"):
        keys.Keys(path)


def test_every_task_that_is_served_was_asked() -> None:
    assert set(ROUTES) < set(PREFIXES)
