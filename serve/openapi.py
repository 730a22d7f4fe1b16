"""What the interactive page of each route says: an example of its request and of its answer.

It does not know how they are read or written; `tests/serve` holds that the examples are true.
"""

from typing import Any

from serve.limits import MAX_CHARACTERS, MAX_MESSAGES, MAX_TEXTS
from serve.shapes import GENERATING, failure

EXAMPLES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "qa": (
        "Find the answer to a question in a context",
        {"inputs": {"question": "What colour is the circle?", "context": "A red circle is above a blue square."}},
        {"answer": "red", "score": 0.97, "start": 2, "end": 5},
    ),
    "translation": (
        "Translate a text, or a list of texts",
        {"inputs": "a red circle"},
        [{"translation_text": "ein roter Kreis"}],
    ),
    "captioning": (
        "Describe a picture: its bytes as the body, or base64 in JSON",
        {"inputs": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"},
        [{"generated_text": "a red circle above a blue square"}],
    ),
    "causal_lm": (
        "Continue a text; with `stream`, as server-sent events",
        {"inputs": "There is a", "parameters": {"max_new_tokens": 20}, "stream": False},
        [{"generated_text": " red circle above a blue square."}],
    ),
    "masked_lm": (
        "Fill in a masked word",
        {"inputs": "A red <mask>.", "parameters": {"top_k": 1}},
        [{"score": 0.31, "token": 412, "token_str": " circle", "sequence": "A red circle."}],
    ),
    "classification": (
        "Tell the class of a text, or of each of a list of texts; the best class first",
        {"inputs": "A red circle is above a blue square.", "parameters": {"top_k": 2}},
        [[{"label": "circle", "score": 0.93}, {"label": "square", "score": 0.05}]],
    ),
    "chat": (
        "Answer a conversation, or a text as if a user had said it; with `stream`, as server-sent events",
        {"inputs": [{"role": "user", "content": "What is above the square?"}], "parameters": {"max_new_tokens": 20}},
        [{"generated_text": "A red circle."}],
    ),
}
OPENAI_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "causal_lm": (
        "Continue a text",
        {"model": "NAME", "prompt": "There is a", "max_tokens": 20, "temperature": 0},
    ),
    "chat": (
        "Answer a conversation",
        {"model": "NAME", "messages": [{"role": "user", "content": "What is above the square?"}], "temperature": 0},
    ),
}
"""Of the routes that answer as OpenAI's do; the answers are described in OpenAI's reference."""
TEXT: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS}
TEXTS = {"oneOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": MAX_TEXTS}]}
MESSAGES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "object", "required": ["role"]},
    "maxItems": MAX_MESSAGES,
}
QUESTION = {
    "type": "object",
    "properties": {"question": TEXT, "context": TEXT},
    "required": ["question", "context"],
    "additionalProperties": False,
}
INPUTS: dict[str, dict[str, Any]] = {
    "qa": QUESTION,
    "translation": TEXTS,
    "captioning": {"type": "string", "format": "byte"},
    "causal_lm": TEXT,
    "masked_lm": TEXT,
    "classification": TEXTS,
    "chat": {"oneOf": [TEXT, MESSAGES]},
}
OPENAI_INPUTS = {"causal_lm": ("prompt", TEXTS), "chat": ("messages", MESSAGES)}
STREAM: dict[str, Any] = {"text/event-stream": {}}
UNKNOWN_MODEL = {404: "No model of that name answers here"}
ERRORS = {
    400: "The body is not JSON, or empty",
    401: "No API key, or one that is not valid, where keys are asked for",
    413: "The body or a field is too large",
    415: "Not a picture",
    422: "A field or parameter is wrong; the message names it",
    429: "Too many requests with this API key; `Retry-After` says when the next may come",
    503: "No capacity; `Retry-After` says when to try again",
}


def described(task: str) -> dict[str, Any]:
    """Arguments of a FastAPI route that document it."""
    summary, request, answer = EXAMPLES[task]
    content: dict[str, Any] = {"application/json": {"schema": _schema(task), "example": request}}
    if task == "captioning":
        content = {"image/png": {"schema": {"type": "string", "format": "binary"}}} | content
    errors = {
        status: {"description": text, "content": {"application/json": {"example": failure("…", status)}}}
        for status, text in ERRORS.items()
    }
    good = {200: {"content": {"application/json": {"example": answer}} | (STREAM if task in GENERATING else {})}}
    return {
        "summary": summary,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": good | errors,
    }


def one_model_described() -> dict[str, Any]:
    return {
        "summary": "One of them",
        "responses": {status: {"description": text} for status, text in UNKNOWN_MODEL.items()},
    }


def _schema(task: str) -> dict[str, Any]:
    """What every body must keep to; parameters are judged by the task."""
    parts = {"inputs": INPUTS[task], "parameters": {"type": ["object", "null"]}}
    if task in GENERATING:
        parts |= {"stream": {"type": ["boolean", "null"]}}
    return {"type": "object", "properties": parts, "required": ["inputs"], "additionalProperties": False}


def openai_described(task: str) -> dict[str, Any]:
    """Arguments of a FastAPI route under `/v1` that document it."""
    summary, request = OPENAI_EXAMPLES[task]
    name, inputs = OPENAI_INPUTS[task]
    schema = {"type": "object", "properties": {name: inputs}, "required": [name]}
    content = {"application/json": {"schema": schema, "example": request}}
    errors = {status: {"description": text} for status, text in (ERRORS | UNKNOWN_MODEL).items()}
    return {
        "summary": summary,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": {200: {"content": {"application/json": {}} | STREAM}} | errors,
    }
