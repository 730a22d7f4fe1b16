"""A body as JSON, and its fields judged one by one.

It does not know what a route reads, nor HTTP beyond the status that a `RequestError` carries.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from llmray.job.errors import RequestError
from serve.limits import MAX_CHARACTERS


def parsed(body: bytes) -> Any:
    if not body.strip():
        raise RequestError("The body is empty; send a JSON object", 400)
    try:
        return json.loads(body, parse_constant=_not_a_number, parse_float=_finite)
    except RecursionError:
        raise RequestError("The body is not usable JSON: it is nested too deeply", 400) from None
    except ValueError as error:
        raise RequestError(f"The body is not valid JSON: {error}", 400) from None


def _not_a_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is beyond the range of numbers")
    return value


def fields_of(value: Any, allowed: Sequence[str], where: str = "") -> dict[str, Any]:
    """An object's fields, null ones left out; unknown ones are refused and the first of `allowed` is required."""
    if not isinstance(value, dict):
        raise RequestError(f"{where or 'the body'} must be a JSON object, not {kind(value)}")
    path = f"{where}." if where else ""
    if unknown := [name for name in value if name not in allowed]:
        raise RequestError(f"unknown field {path}{quoted(unknown[0])}; allowed: {', '.join(allowed)}")
    if value.get(allowed[0]) is None:
        raise RequestError(f"{path}{allowed[0]} is missing")
    return {name: each for name, each in value.items() if each is not None}


def flag(value: Any, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false, not {kind(value)}")
    return bool(value)


def text_of(value: Any, name: str, *, may_be_empty: bool = False) -> str:
    """A text field: not empty, not too long, and such that a tokenizer can read it."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a string, not {kind(value)}")
    if not value.strip() and not may_be_empty:
        raise RequestError(f"{name} is empty")
    if len(value) > MAX_CHARACTERS:
        raise RequestError(f"{name} has {len(value):,} characters; at most {MAX_CHARACTERS:,} are read", 413)
    if "\0" in value:
        raise RequestError(f"{name} holds a null character at position {value.index(chr(0))}; take it out")
    if not is_unicode(value):
        raise RequestError(f"{name} is not valid Unicode: it holds half a surrogate pair")
    return value


def is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def quoted(name: str) -> str:
    """A name from outside, safe to send back."""
    return json.dumps(name[:80])
