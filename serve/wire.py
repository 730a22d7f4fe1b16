"""JSON ↔ requests and answers, in the shapes of `huggingface_hub.InferenceClient`.

It does not know how requests are answered, nor HTTP beyond the status that a `RequestError` carries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmray.job.errors import RequestError
from llmray.tasks.base import Answer, Request
from serve.conversation import messages_of
from serve.fields import fields_of, flag, is_unicode, kind, parsed, text_of
from serve.limits import MAX_TEXTS
from serve.pictures import picture_of, unpacked
from serve.shapes import GENERATING, compact, sse

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
    fields = fields_of(parsed(body), ("inputs", "parameters", *(("stream",) if task in GENERATING else ())))
    parameters = _parameters(fields.get("parameters"))
    details = flag(parameters.pop("details", None), "parameters.details") if task in GENERATING else False
    inputs = READERS[task](fields["inputs"])
    stream = flag(fields.get("stream"), "stream")
    return Call(tuple(Request(each, parameters) for each in inputs), stream, details)


def write(task: str, call: Call, answers: Sequence[Answer | RequestError]) -> Any:
    """JSON value of a call's answers.  Raises the first `RequestError` among them, naming its place in a list."""
    for place, answer in enumerate(answers):
        if isinstance(answer, RequestError):
            where = f"inputs[{place}]: " if len(answers) > 1 else ""
            raise RequestError(f"{where}{answer}", answer.status)
    return WRITERS[task](call, [answer for answer in answers if not isinstance(answer, RequestError)])


def event(index: int, text: str) -> str:
    """A server-sent event with one piece of text."""
    token = {"id": None, "text": text, "logprob": None, "special": False}
    return sse({"index": index, "token": token, "generated_text": None, "details": None})


def last_event(call: Call, index: int, whole: str, answer: Answer) -> str:
    """The event that ends a stream: no piece, the whole text, and details where they were asked for."""
    token = {"id": None, "text": "", "logprob": None, "special": True}
    details = _details(call, answer) | {"input_length": answer["prompt_tokens"]} if call.details else None
    return sse({"index": index, "token": token, "generated_text": whole, "details": details})


# --- reading ----------------------------------------------------------------------------------------------------------


def _is_json(body: bytes, content_type: str) -> bool:
    """No picture format begins with a brace, so JSON is known even when a client mislabels it (curl does)."""
    return content_type.partition(";")[0].strip().lower() == "application/json" or body.lstrip()[:1] == b"{"


def _parameters(value: Any) -> dict[str, Any]:
    """Parameters, null ones left out; names and values are judged by the task that understands them."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"parameters must be a JSON object, not {kind(value)}")
    given = {name: each for name, each in value.items() if each is not None}
    for name in NESTED_PARAMETERS:
        if name in given:
            nested = given.pop(name)
            if not isinstance(nested, dict):
                raise RequestError(f"parameters.{name} must be a JSON object, not {kind(nested)}")
            given |= nested
    if not is_unicode(compact(given)):
        raise RequestError("parameters is not valid Unicode: it holds half a surrogate pair")
    return given


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


def _conversation(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"messages": [{"role": "user", "content": text_of(value, "inputs")}]}]
    return [{"messages": messages_of(value, "inputs")}]


def _question(value: Any) -> list[dict[str, Any]]:
    fields = fields_of(value, ("question", "context"), "inputs")
    if "context" not in fields:
        raise RequestError("inputs.context is missing")
    return [{name: text_of(fields[name], f"inputs.{name}") for name in ("question", "context")}]


def _picture(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, str):
        raise RequestError(f"inputs must be the picture in base64, a string, not {kind(value)}")
    return [{"image": picture_of(unpacked(value), "inputs")}]


READERS: dict[str, Callable[[Any], list[dict[str, Any]]]] = {
    "qa": _question,
    "translation": _texts,
    "captioning": _picture,
    "causal_lm": _text,
    "masked_lm": _text,
    "classification": _texts,
    "chat": _conversation,
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
    "chat": _writings,
}
