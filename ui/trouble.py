"""What went wrong between the page and an endpoint, and what a person can do about it.

It does not know how requests are sent or how a message is shown.
"""

from typing import Literal

import httpx
from pydantic import BaseModel, ValidationError

from llmray.job.errors import LlmrayError

Kind = Literal["absent", "unreachable", "key", "refused", "busy", "late", "broken"]


class EndpointError(LlmrayError):
    """An endpoint gave no answer; `args` are what happened, the way out, and the kind of trouble."""

    def __init__(self, what: str, way_out: str, kind: Kind) -> None:
        super().__init__(what, way_out, kind)

    def __str__(self) -> str:
        return f"{self.what} {self.way_out}"

    @property
    def what(self) -> str:
        return str(self.args[0])

    @property
    def way_out(self) -> str:
        return str(self.args[1])

    @property
    def kind(self) -> Kind:
        return self.args[2]


class _Body(BaseModel):
    error: str = ""


_START = "Start the endpoints with `llmray serve JOB.yaml` or `llmray demo`, then try again."


def unreachable(base_url: str) -> EndpointError:
    return EndpointError(f"Nothing answers at {base_url}.", _START, "unreachable")


def late(url: str, timeout_s: float) -> EndpointError:
    return EndpointError(
        f"No answer from {url} within {timeout_s:g} seconds.",
        "The model may still be starting or be under load. Try again in a moment.",
        "late",
    )


def garbled(url: str) -> EndpointError:
    return EndpointError(
        f"The answer from {url} is not one of an llmray endpoint.",
        "Check the address that the page was started with (`llmray ui --url`).",
        "broken",
    )


def cut_off(url: str) -> EndpointError:
    return EndpointError(f"The connection to {url} broke off before the answer was complete.", "Try again.", "broken")


def failed_midway(message: str) -> EndpointError:
    return EndpointError(f"The endpoint stopped writing: {message}", "Try again, or with another text.", "broken")


def refused(response: httpx.Response, has_key: bool) -> EndpointError:
    """The meaning of an answer that is not 2xx; the endpoint's own words come first where it gave any."""
    url, status, said = str(response.request.url), response.status_code, _said(response)
    again = _again(response)
    match status:
        case 400 | 422:
            return EndpointError(said or "The request was not accepted.", "Change the input and try again.", "refused")
        case 401 | 403:
            what = "This API key is not accepted here." if has_key else "This endpoint asks for an API key."
            return EndpointError(what, "Enter a valid key under Connection, at the foot of the page.", "key")
        case 404:
            way_out = "Serve a model for it with `llmray serve JOB.yaml`; the other tabs work without it."
            return EndpointError(f"Nothing is deployed at {url}.", way_out, "absent")
        case 413:
            return EndpointError(
                said or "This is larger than the endpoint accepts.", "Send something smaller.", "refused"
            )
        case 415:
            way_out = "Choose a PNG, JPEG, WebP, GIF or BMP picture."
            return EndpointError(said or "This file is not a picture.", way_out, "refused")
        case 429:
            return EndpointError(said or "That was more requests than this API key allows.", again, "busy")
        case 502 | 503 | 504:
            return EndpointError(said or "The endpoint has no free capacity.", again, "busy")
        case status if status >= 500:
            what = said or "The endpoint failed on this request."
            return EndpointError(what, "Try another input; the endpoint's log says why.", "broken")
        case _:
            return garbled(url)


def _said(response: httpx.Response) -> str:
    try:
        said = _Body.model_validate_json(response.content).error.strip()
    except ValidationError:
        return ""
    return said if said.endswith((".", "!", "?")) or not said else f"{said}."


def _again(response: httpx.Response) -> str:
    wait = response.headers.get("retry-after", "")
    return f"Try again in {wait} s." if wait.isdecimal() and int(wait) > 1 else "Try again in a moment."
