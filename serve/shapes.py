"""Where each task is served, and what an error looks like.  It does not know requests or answers (`wire` does)."""

import json
from collections.abc import Mapping
from typing import Any

ROUTES: dict[str, str] = {
    "qa": "/qa",
    "translation": "/translate",
    "captioning": "/caption",
    "causal_lm": "/generate",
    "masked_lm": "/fill-mask",
    "classification": "/classify",
}
"""Task → route prefix."""
LONGEST_MESSAGE = 1000
"""Characters of an error: it may quote what was sent."""


def failure(message: str, status: int) -> dict[str, str]:
    """Body of an error; `error_type` is what text-generation-inference calls its kind."""
    kind = "overloaded" if status in (429, 503) else "validation" if status < 500 else "generation"
    told = message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + " …"
    return {"error": told.encode(errors="replace").decode(), "error_type": kind}


def compact(value: Mapping[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False)
