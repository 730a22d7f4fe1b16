"""Thousands of wrong requests: none is answered with 500, none hangs, none changes what others get meanwhile."""

import asyncio
import base64
import copy
import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
SAID = [{"role": "user", "content": "What is red?"}]
FEW = {"max_new_tokens": 2}
GOOD: dict[str, dict[str, Any]] = {
    "/qa": {"inputs": {"question": "What is red?", "context": "A red circle."}, "parameters": {"top_k": 1}},
    "/translate": {"inputs": ["a red circle"], "parameters": FEW},
    "/caption": {"inputs": PIXEL, "parameters": FEW},
    "/classify": {"inputs": "A red circle.", "parameters": {"top_k": 1}},
    "/fill-mask": {"inputs": "A red <mask>.", "parameters": {"top_k": 1}},
    "/generate": {"inputs": "A red", "parameters": FEW, "stream": False},
    "/chat": {"inputs": SAID, "parameters": FEW, "stream": False},
    "/v1/completions": {"prompt": ["A red"], "max_tokens": 2, "temperature": 0, "stop": ["x"]},
    "/v1/chat/completions": {"messages": SAID, "max_tokens": 2, "temperature": 0, "n": 1},
}
"""A request of each route; greedy, so that its answer is always the same."""
STREAMING = ("/generate", "/chat", "/v1/completions", "/v1/chat/completions")
NAMES = ["do_sample", "temperature", "top_p", "top_k", "seed", "num_beams", "repetition_penalty", "stop", "stream"]
NAMES += ["max_answer_len", "function_to_apply", "details", "return_full_text", "n", "model", "role", "text", "tools"]
AT_ONCE = 16
SAME_EACH_TIME = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
STATUSES = {200, 400, 404, 413, 415, 422, 503}

numbers = st.sampled_from([0, -1, 1, 2, 3, 0.5, 1e-45, 1e-7, 1e30, -1e308, 2**31, 2**63, 2**64, 10**400])
texts = st.text(st.characters(), max_size=20) | st.sampled_from(["", " ", "\0", "\ud83d", "🙂", "مرحبا", "x" * 3000])
leaves = st.none() | st.booleans() | numbers | texts
values = st.recursive(leaves, lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, its root included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn, route: str) -> bytes:
    """A good body with unusual options, or with something changed, added or left out and perhaps a few bytes too."""
    body: Any = copy.deepcopy(GOOD[route])
    if route in STREAMING:
        body["stream"] = draw(st.booleans())
    options = body if route.startswith("/v1") else body["parameters"]
    if options == FEW and draw(st.booleans()):
        options["do_sample"] = True
    if draw(st.booleans()):
        options |= draw(st.dictionaries(st.sampled_from(NAMES), numbers, min_size=1, max_size=2))
        return json.dumps(body).encode()
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(body)))
        body = changed(draw, body, path)
    sent = json.dumps(body).encode()
    if draw(st.integers(0, 3)):
        return sent
    at = draw(st.integers(0, len(sent)))
    return sent[:at] + draw(st.binary(max_size=4)) + sent[at + draw(st.integers(0, 8)) :]


def changed(draw: st.DrawFn, body: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        if isinstance(body, dict) and draw(st.integers(0, 5)):
            return body | {draw(st.sampled_from(NAMES) | texts): draw(values)}
        return draw(values)
    above = body
    for key in path[:-1]:
        above = above[key]
    if isinstance(above[path[-1]], dict) and draw(st.booleans()):
        above[path[-1]][draw(st.sampled_from(NAMES) | texts)] = draw(numbers | values)
    elif draw(st.integers(0, 4)):
        above[path[-1]] = draw(values)
    else:
        del above[path[-1]]
    return body


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture with a few bytes changed."""
    picture = base64.b64decode(PIXEL)
    at = draw(st.integers(0, len(picture)))
    return picture[:at] + draw(st.binary(max_size=8)) + picture[at + draw(st.integers(0, 8)) :]


def wrong(route: str, count: int) -> list[bytes]:
    """So many different bodies, the same at each run."""
    found: dict[bytes, None] = {}

    @settings(SAME_EACH_TIME, max_examples=2 * count, phases=[Phase.generate])
    @given(mutated(route) | damaged() if route == "/caption" else mutated(route))
    def collect(body: bytes) -> None:
        found[body] = None

    collect()
    assert len(found) >= count
    return list(found)[:count]


async def answers(live: str, route: str, bodies: list[bytes]) -> list[httpx.Response]:
    """Answers to `bodies`, `AT_ONCE` of them at a time, the last of which are always good ones."""
    ways = ({}, {"stream": True}) if route in STREAMING else ({},)
    good, found = [json.dumps(GOOD[route] | way).encode() for way in ways], []
    room = AT_ONCE - len(good)
    async with httpx.AsyncClient(base_url=live, timeout=60) as http:
        for start in range(0, len(bodies), room):
            group = [*bodies[start : start + room], *good]
            found += await asyncio.gather(*(http.post(route, content=body) for body in group))
    return found


@pytest.mark.parametrize("route", GOOD)
@pytest.mark.parametrize("count", [60, pytest.param(1125, marks=pytest.mark.slow)])
def test_no_body_breaks_a_route_or_disturbs_others(live: str, route: str, count: int) -> None:
    """The long runs send 9 × 1,125 = 10,125 different bodies."""
    alone = known(httpx.post(live + route, json=GOOD[route], timeout=60))
    for answer in asyncio.run(answers(live, route, wrong(route, count))):
        body = answer.request.content
        assert answer.status_code in STATUSES, (body, answer.text)
        assert answer.status_code == 200 or answer.json()["error"], body
        if answer.headers["content-type"].startswith("text/event-stream"):
            assert ended_well(answer), (body, answer.text)
        if body == json.dumps(GOOD[route]).encode():
            assert known(answer) == alone


def ended_well(stream: httpx.Response) -> bool:
    """Whether it came to its end; what breaks behind the status is told in an event, and nothing follows."""
    *events, last = [event.removeprefix("data: ") for event in stream.text.split("\n\n")[:-1]]
    if "/v1/" in stream.url.path:
        return last == "[DONE]" and not any("error" in json.loads(event) for event in events)
    return isinstance(json.loads(last).get("generated_text"), str)


def known(answer: httpx.Response) -> Any:
    """A good answer without what differs from call to call; scores to five digits."""
    assert answer.status_code == 200, answer.text
    found = json.loads(answer.text, parse_float=lambda digits: round(float(digits), 5))
    return {key: each for key, each in found.items() if key not in ("id", "created")} if "id" in found else found


@pytest.mark.parametrize("prefix", sorted({f"/{route.split('/')[1]}" for route in GOOD}))
def test_every_route_keeps_to_its_openapi(live: str, prefix: str) -> None:
    """A body may keep to the schema and yet be refused: a text of blanks, or of too many tokens, is."""
    schema = schemathesis.openapi.from_url(f"{live}{prefix}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(SAME_EACH_TIME, max_examples=20)
        @given(operation.as_strategy())
        def send(case: schemathesis.Case) -> None:
            case.call_and_validate(timeout=60, excluded_checks=[positive_data_acceptance])

        send()
