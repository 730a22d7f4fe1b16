"""What was just asked, as a command and as a program that ask the same.

It does not know how the page asks.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PICTURE = "picture.png"
"""Stands for an uploaded picture's file."""
KEY = "$LLMRAY_API_KEY"


@dataclass(frozen=True)
class Call:
    """One request to an endpoint: its route, and its body, or a picture's bytes."""

    route: str
    body: bytes | dict[str, Any]


def curl(base_url: str, call: Call, keyed: bool) -> str:
    """A shell command; the key comes from the environment, so that it does not end in a history."""
    header, data = "content-type: application/json", shlex.quote(json.dumps(call.body, ensure_ascii=False, default=str))
    if isinstance(call.body, bytes):
        header, data = "content-type: application/octet-stream", f"@{PICTURE}"
    lines = [f"curl {shlex.quote(base_url + call.route)}", f"-H {shlex.quote(header)}"]
    if keyed:
        lines.append(f'-H "authorization: Bearer {KEY}"')
    if isinstance(call.body, dict) and call.body.get("stream"):
        lines.append("--no-buffer")
    return " \\\n  ".join([*lines, f"--data-binary {data}"])


def python(base_url: str, call: Call, keyed: bool) -> str:
    """A program for `huggingface_hub.InferenceClient`."""
    token = ', token=os.environ["LLMRAY_API_KEY"]' if keyed else ""
    imports = ["import os", ""] if keyed else []
    return "\n".join(
        [
            *imports,
            "from huggingface_hub import InferenceClient",
            "",
            f"client = InferenceClient(model={base_url + call.route!r}{token})",
            PROGRAMS["/" + call.route.split("/")[1]](call.body),
        ]
    )


def _asking(body: Any) -> str:
    inputs, top_k = body["inputs"], body["parameters"]["top_k"]
    asked = f"question={inputs['question']!r}, context={inputs['context']!r}, top_k={top_k}"
    return f"for answer in client.question_answering({asked}):\n    print(answer.score, answer.answer)"


def _translating(body: Any) -> str:
    return f"print(client.translation({body['inputs']!r}).translation_text)"


def _captioning(body: Any) -> str:
    return f"print(client.image_to_text({PICTURE!r}).generated_text)"


def _writing(body: Any) -> str:
    given = "".join(f", {name}={value!r}" for name, value in body["parameters"].items())
    asked = f"client.text_generation({body['inputs']!r}, stream=True{given})"
    return f'for piece in {asked}:\n    print(piece, end="", flush=True)'


PROGRAMS: dict[str, Callable[[Any], str]] = {
    "/qa": _asking,
    "/translate": _translating,
    "/caption": _captioning,
    "/generate": _writing,
}
