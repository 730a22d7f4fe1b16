"""JSON ↔ requests and answers, in the shapes of `huggingface_hub.InferenceClient`.

It does not know how requests are answered, nor HTTP beyond the status that a `RequestError` carries.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from llmray.job.errors import RequestError
from llmray.tasks.base import Answer, Request
from serve.limits import MAX_CHARACTERS, MAX_TEXTS
from serve.pictures import picture_of, unpacked
from serve.shapes import compact

NESTED_PARAMETERS = ("generate_parameters", "generation_parameters")
"""Where InferenceClient puts parameters of generation for `translation` and `image_to_text`."""


@dataclass(frozen=True)
class Call:
    """One HTTP request as the model sees it: several requests where the body held a list."""

    requests: tuple[Request, ...]
    stream: bool = False
    details: bool = False


def read(task: str, body: bytes, content_type: str) -> Call:
    """Judge a body and turn it into requests.  Raises `RequestError` naming the field and the way out."""
    if task == "captioning" and not _is_json(body, content_type):
        return Call((Request({"image": picture_of(body, "the body")}, {}),))
    fields = _fields(_parsed(body), ("inputs", "parameters", *(("stream",) if task == "causal_lm" else ())))
    parameters = _parameters(fields.get("parameters"))
    details = _flag(parameters.pop("details", None), "parameters.details") if task == "causal_lm" else False
    inputs = READERS[task](fields["inputs"])
    stream = _flag(fields.get("stream"), "stream")
    return Call(tuple(Request(each, parameters) for each in inputs), stream, details)


def write(task: str, call: Call, answers: Sequence[Answer | RequestError]) -> Any:
    """JSON value of a call's answers.  Raises the first `RequestError` among them, naming its place in a list."""
    for place, answer in enumerate(answers):
        if isinstance(answer, RequestError):
            where = f"inputs[{place}]: " if len(answers) > 1 else ""
            raise RequestError(f"{where}{answer}", answer.status)
    return WRITERS[task](call, [answer for answer in answers if not isinstance(answer, RequestError)])


def event(index: int, text: str, *, whole: str | None = None) -> str:
    """A server-sent event with one piece of text; the last one has no piece and brings the whole text."""
    token = {"id": None, "text": text, "logprob": None, "special": whole is not None}
    return sse({"index": index, "token": token, "generated_text": whole, "details": None})


def sse(value: Mapping[str, Any]) -> str:
    return f"data: {compact(value)}\n\n"


# --- reading ----------------------------------------------------------------------------------------------------------


def _is_json(body: bytes, content_type: str) -> bool:
    """No picture format begins with a brace, so JSON is known even when a client mislabels it (curl does)."""
    return content_type.partition(";")[0].strip().lower() == "application/json" or body.lstrip()[:1] == b"{"


def _parsed(body: bytes) -> Any:
    if not body.strip():
        raise RequestError('The body is empty; send JSON such as {"inputs": …}', 400)
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


def _fields(value: Any, allowed: Sequence[str], where: str = "") -> dict[str, Any]:
    """An object's fields, null ones left out; unknown ones are refused and the first of `allowed` is required."""
    if not isinstance(value, dict):
        raise RequestError(f"{where or 'the body'} must be a JSON object, not {_kind(value)}")
    path = f"{where}." if where else ""
    if unknown := [name for name in value if name not in allowed]:
        raise RequestError(f"unknown field {path}{_quoted(unknown[0])}; allowed: {', '.join(allowed)}")
    if value.get(allowed[0]) is None:
        raise RequestError(f"{path}{allowed[0]} is missing")
    return {name: each for name, each in value.items() if each is not None}


def _parameters(value: Any) -> dict[str, Any]:
    """Parameters, null ones left out; names and values are judged by the task that understands them."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"parameters must be a JSON object, not {_kind(value)}")
    given = {name: each for name, each in value.items() if each is not None}
    for name in NESTED_PARAMETERS:
        if name in given:
            nested = given.pop(name)
            if not isinstance(nested, dict):
                raise RequestError(f"parameters.{name} must be a JSON object, not {_kind(nested)}")
            given |= nested
    if not _is_unicode(compact(given)):
        raise RequestError("parameters is not valid Unicode: it holds half a surrogate pair")
    return given


def _flag(value: Any, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false, not {_kind(value)}")
    return bool(value)


def text_of(value: Any, name: str) -> str:
    """A text field: not empty, not too long, and such that a tokenizer can read it."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a string, not {_kind(value)}")
    if not value.strip():
        raise RequestError(f"{name} is empty")
    if len(value) > MAX_CHARACTERS:
        raise RequestError(f"{name} has {len(value):,} characters; at most {MAX_CHARACTERS:,} are read", 413)
    if "\0" in value:
        raise RequestError(f"{name} holds a null character at position {value.index(chr(0))}; take it out")
    if not _is_unicode(value):
        raise RequestError(f"{name} is not valid Unicode: it holds half a surrogate pair")
    return value


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _texts(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return [{"text": text_of(value, "inputs")}]
    if not value:
        raise RequestError("inputs is an empty list")
    if len(value) > MAX_TEXTS:
        raise RequestError(f"inputs holds {len(value)} texts; at most {MAX_TEXTS} are read in one request", 413)
    return [{"text": text_of(each, f"inputs[{place}]")} for place, each in enumerate(value)]


def _text(value: Any) -> list[dict[str, Any]]:
    return [{"text": text_of(value, "inputs")}]


def _question(value: Any) -> list[dict[str, Any]]:
    fields = _fields(value, ("question", "context"), "inputs")
    if "context" not in fields:
        raise RequestError("inputs.context is missing")
    return [{name: text_of(fields[name], f"inputs.{name}") for name in ("question", "context")}]


def _picture(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, str):
        raise RequestError(f"inputs must be the picture in base64, a string, not {_kind(value)}")
    return [{"image": picture_of(unpacked(value), "inputs")}]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _quoted(name: str) -> str:
    """A name from outside, safe to send back."""
    return json.dumps(name[:80])


READERS: dict[str, Callable[[Any], list[dict[str, Any]]]] = {
    "qa": _question,
    "translation": _texts,
    "captioning": _picture,
    "causal_lm": _text,
    "masked_lm": _text,
    "classification": _texts,
}


# --- writing ----------------------------------------------------------------------------------------------------------


def _spans(call: Call, answers: list[Answer]) -> Any:
    candidates = answers[0]["candidates"]
    if float(call.requests[0].parameters.get("top_k", 1)) > 1:
        return candidates
    return candidates[0] if candidates else {"answer": "", "score": 0.0, "start": 0, "end": 0}


def _translations(call: Call, answers: list[Answer]) -> Any:
    return [{"translation_text": answer["translation_text"]} for answer in answers]


def _captions(call: Call, answers: list[Answer]) -> Any:
    return [{"generated_text": answer["generated_text"]} for answer in answers]


def _writings(call: Call, answers: list[Answer]) -> Any:
    return [
        {"generated_text": answer["generated_text"]} | ({"details": _details(call, answer)} if call.details else {})
        for answer in answers
    ]


def _details(call: Call, answer: Answer) -> dict[str, Any]:
    return {
        "finish_reason": answer["finish_reason"],
        "generated_tokens": answer["tokens"],
        "prompt_tokens": answer["prompt_tokens"],
        "seed": call.requests[0].parameters.get("seed"),
        "prefill": [],
        "tokens": [],
    }


def _fillings(call: Call, answers: list[Answer]) -> Any:
    return answers[0]["candidates"]


def _classes(call: Call, answers: list[Answer]) -> Any:
    return [answer["candidates"] for answer in answers]


WRITERS: dict[str, Callable[[Call, list[Answer]], Any]] = {
    "qa": _spans,
    "translation": _translations,
    "captioning": _captions,
    "causal_lm": _writings,
    "masked_lm": _fillings,
    "classification": _classes,
}
