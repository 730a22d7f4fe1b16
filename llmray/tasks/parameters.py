"""Which parameters a request may carry, judged before any model sees them.  It does not know who sent them."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from transformers import GenerationConfig

from llmray.job.errors import RequestError


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerParameters(Parameters):
    """Extractive question answering."""

    top_k: int = Field(1, ge=1, le=100)
    max_answer_len: int | None = Field(None, ge=1, le=1000)


class FillParameters(Parameters):
    """Masked tokens."""

    top_k: int = Field(5, ge=1, le=100)


class ClassParameters(Parameters):
    """Classes of a text; `function_to_apply` turns the model's outputs into scores, softmax unless told otherwise."""

    top_k: int | None = Field(None, ge=1)
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class SequenceParameters(Parameters):
    """Translation and captions: the whole sequence is the answer.

    Temperatures and penalties near 0 divide scores beyond what a float holds, and torch's seeds have 63 bits.
    """

    max_new_tokens: int | None = Field(None, ge=1, le=4096)
    num_beams: int | None = Field(None, ge=1, le=16)
    do_sample: bool = False
    temperature: float = Field(1.0, ge=1e-5, le=100)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.01, le=10)
    seed: int | None = Field(None, ge=0, lt=2**63)


class TextParameters(SequenceParameters):
    """Free text."""

    max_new_tokens: int | None = Field(64, ge=1, le=4096)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    return_full_text: bool = False


class ChatParameters(TextParameters):
    """An assistant's message."""

    max_new_tokens: int | None = Field(256, ge=1, le=4096)


def judged(kind: type[Parameters], parameters: dict[str, Any]) -> Any:
    """Parameters as one value; null means the default.  Raises `RequestError` (422) naming the field."""
    try:
        return kind.model_validate({key: value for key, value in parameters.items() if value is not None})
    except pydantic.ValidationError as error:
        raise RequestError("; ".join(_complaint(e, kind) for e in error.errors(include_url=False))) from None


def _complaint(error: Any, kind: type[Parameters]) -> str:
    field = ".".join(map(str, ("parameters", *error["loc"])))
    if error["type"] == "extra_forbidden":
        return f"{field}: unknown parameter; allowed: {', '.join(sorted(kind.model_fields))}"
    return f"{field}: {error['msg']}; found {error['input']!r}"


def generation(parameters: SequenceParameters, beams: int, max_new_tokens: int, **ids: Any) -> GenerationConfig:
    """The `transformers` form of judged parameters."""
    sampling = (
        {"temperature": parameters.temperature, "top_k": parameters.top_k, "top_p": parameters.top_p}
        if parameters.do_sample
        else {}
    )
    return GenerationConfig(
        max_new_tokens=min(parameters.max_new_tokens or max_new_tokens, max_new_tokens),
        num_beams=parameters.num_beams or beams,
        do_sample=parameters.do_sample,
        repetition_penalty=parameters.repetition_penalty,
        **sampling,
        **ids,
    )
