"""OpenAI's bodies ↔ requests and answers, for `/v1/completions` and `/v1/chat/completions`.

It does not know who answers, nor HTTP beyond the status that a `RequestError` carries.
"""

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmray.job.errors import RequestError
from llmray.tasks.base import Answer, Request
from serve.conversation import messages_of
from serve.fields import kind, parsed, text_of
from serve.limits import MAX_TEXTS
from serve.shapes import sse

DONE = "data: [DONE]\n\n"
GREEDY_BELOW = 1e-5
"""A temperature that leaves nothing to chance, and by which logits can hardly be divided."""
NEUTRAL: dict[str, Sequence[Any]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "echo": (False,),
    "best_of": (1,),
    "store": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
}
"""What OpenAI's models can do and these cannot → the values that ask for nothing."""
IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "parallel_tool_calls")
"""Fields that change no answer."""


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    include_usage: bool = False


class Asked(BaseModel):
    """Fields of both routes, with OpenAI's defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=4096)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=16)
    stop: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field((), max_length=4)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @field_validator("stop", mode="before")
    @classmethod
    def one_stop_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def parameters(self, number: int) -> dict[str, Any]:
        """What the model is told for the `number`th of `n` answers."""
        told: dict[str, Any] = {"max_new_tokens": self.most(), "stop": self.stop}
        if self.temperature < GREEDY_BELOW:
            return told
        seed = None if self.seed is None else (self.seed + number) % 2**63
        return told | {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "seed": seed}

    def most(self) -> int | None:
        return self.max_tokens


class AskedText(Asked):
    """`/v1/completions`."""

    prompt: Any
    max_tokens: int | None = Field(16, ge=1, le=4096)

    def inputs(self) -> list[dict[str, Any]]:
        if isinstance(self.prompt, str):
            return [{"text": text_of(self.prompt, "prompt")}]
        if not isinstance(self.prompt, list) or not self.prompt:
            raise RequestError(f"prompt must be a string or a list of strings, not {kind(self.prompt)}")
        return [{"text": text_of(each, f"prompt[{place}]")} for place, each in enumerate(self.prompt)]


class AskedChat(Asked):
    """`/v1/chat/completions`; with no limit the model's own holds."""

    messages: Any
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)

    def most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def inputs(self) -> list[dict[str, Any]]:
        return [{"messages": messages_of(self.messages, "messages")}]


@dataclass(frozen=True)
class Call:
    """One HTTP request as the model sees it, and what its answer has to repeat."""

    chat: bool
    model: str
    asked: Asked
    requests: tuple[Request, ...]
    id: str
    created: int


def read(chat: bool, model: str, body: bytes) -> Call:
    """Judge a body and turn it into requests.  Raises `RequestError` naming the field and the way out."""
    asked = _judged(AskedChat if chat else AskedText, parsed(body))
    inputs = asked.inputs()
    if len(inputs) * asked.n > MAX_TEXTS:
        raise RequestError(f"{len(inputs)} prompts with n={asked.n}; at most {MAX_TEXTS} texts are written", 413)
    requests = tuple(Request(each, asked.parameters(number)) for each in inputs for number in range(asked.n))
    if asked.stream and len(requests) > 1:
        raise RequestError("stream: one text is written at a time; send one prompt and n=1, or leave out stream")
    name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
    return Call(chat, model, asked, requests, name, int(time.time()))


def _judged(form: type[AskedChat] | type[AskedText], value: Any) -> AskedChat | AskedText:
    if not isinstance(value, dict):
        raise RequestError(f"the body must be a JSON object, not {kind(value)}")
    given = {name: each for name, each in value.items() if each is not None and name not in IGNORED}
    for name in [name for name in given if name in NEUTRAL]:
        if (found := given.pop(name)) not in NEUTRAL[name]:
            raise RequestError(f"{name} is not supported here (found {str(found)[:80]}); leave it out")
    try:
        return form.model_validate(given)
    except pydantic.ValidationError as error:
        raise RequestError("; ".join(map(_complaint, error.errors(include_url=False)))) from None


def _complaint(error: Any) -> str:
    field = ".".join(map(str, error["loc"]))[:80]
    if error["type"] == "missing":
        return f"{field} is missing"
    if error["type"] == "extra_forbidden":
        return f"{field}: unknown field"
    return f"{field}: {error['msg']}; found {str(error['input'])[:80]!r}"


def complaint(error: RequestError, *, chat: bool) -> RequestError:
    """A model's complaint in the words of OpenAI's fields."""
    field = "messages" if chat else "prompt"
    return RequestError(re.sub(r"^inputs(?=[:\[])", field, str(error)), error.status)


def write(call: Call, answers: Sequence[Answer | RequestError]) -> dict[str, Any]:
    """The body that answers a call.  Raises the first `RequestError` among its answers."""
    good: list[Answer] = []
    for answer in answers:
        if isinstance(answer, RequestError):
            raise answer
        good.append(answer)
    choices = [_choice(call, place, answer) for place, answer in enumerate(good)]
    first_of_each_prompt = good[:: call.asked.n]
    prompts, written = (sum(a["prompt_tokens"] for a in first_of_each_prompt), sum(a["tokens"] for a in good))
    return _head(call, "chat.completion") | {"choices": choices, "usage": _usage(prompts, written)}


def _choice(call: Call, place: int, answer: Answer) -> dict[str, Any]:
    text = shown(answer["generated_text"], call.asked.stop)
    said = {"message": {"role": "assistant", "content": text, "refusal": None}} if call.chat else {"text": text}
    return {"index": place, **said, "logprobs": None, "finish_reason": _reason(answer)}


def opening(call: Call) -> str:
    """What a stream begins with: in a chat, who speaks."""
    return _chunk(call, {"role": "assistant", "content": ""}, None) if call.chat else ""


def piece(call: Call, text: str) -> str:
    """The event with a piece of text; none where a stop string leaves nothing of it."""
    text = shown(text, call.asked.stop)
    return _chunk(call, {"content": text} if call.chat else text, None) if text else ""


def closing(call: Call, answer: Answer) -> str:
    """The events that end a stream."""
    last = _chunk(call, {} if call.chat else "", _reason(answer))
    if not call.asked.stream_options.include_usage:
        return last + DONE
    usage = {"choices": [], "usage": _usage(answer["prompt_tokens"], answer["tokens"])}
    return last + sse(_head(call, "chat.completion.chunk") | usage) + DONE


def _chunk(call: Call, said: str | dict[str, str], reason: str | None) -> str:
    choice = {"index": 0, "delta" if call.chat else "text": said, "logprobs": None, "finish_reason": reason}
    usage = {"usage": None} if call.asked.stream_options.include_usage else {}
    return sse(_head(call, "chat.completion.chunk") | {"choices": [choice]} | usage)


def _head(call: Call, kind_of_chat: str) -> dict[str, Any]:
    shape = kind_of_chat if call.chat else "text_completion"
    return {"id": call.id, "object": shape, "created": call.created, "model": call.model}


def shown(text: str, stops: Sequence[str]) -> str:
    """A text without the stop string that ends it."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def _reason(answer: Answer) -> str:
    return "length" if answer["finish_reason"] == "length" else "stop"


def _usage(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
