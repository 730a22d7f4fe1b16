"""A conversation from outside, judged and brought to what a chat template reads: roles and texts.

It does not know who answers it.
"""

from typing import Any

from llmray.job.errors import RequestError
from serve.fields import kind, quoted, text_of
from serve.limits import MAX_MESSAGES

ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | {"developer": "system"}
UNSAID = ("name", "refusal", "annotations", "audio", "tool_calls", "function_call")
"""What clients send along from answers that they got; empty ones change nothing."""


def messages_of(value: Any, where: str) -> list[dict[str, str]]:
    """Messages with `role` and `content`; a content may be a list of parts that are text."""
    if not isinstance(value, list):
        raise RequestError(f"{where} must be a list of messages, not {kind(value)}")
    if len(value) > MAX_MESSAGES:
        raise RequestError(f"{where} holds {len(value)} messages; at most {MAX_MESSAGES} are read", 413)
    return [_message(each, f"{where}[{place}]") for place, each in enumerate(value)]


def _message(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise RequestError(f"{where} must be an object with role and content, not {kind(value)}")
    for name, each in value.items():
        if name not in ("role", "content", "name") and (each or name not in UNSAID):
            raise RequestError(f"{where}: {quoted(name)} is not supported; only role and content are read")
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        found = quoted(role) if isinstance(role, str) else kind(role)
        raise RequestError(f"{where}.role is {found}; allowed: {', '.join(ROLES)}")
    return {"role": ROLES[role], "content": _content(value.get("content"), f"{where}.content")}


def _content(value: Any, where: str) -> str:
    if not isinstance(value, list):
        return text_of(value, where, may_be_empty=True)
    for place, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise RequestError(f'{where}[{place}] must be an object with type "text"; nothing else is read')
    return "".join(
        text_of(part.get("text"), f"{where}[{place}].text", may_be_empty=True) for place, part in enumerate(value)
    )
