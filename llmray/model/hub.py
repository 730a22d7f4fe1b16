"""Whether a hub id can be had from here, and how.  It does not load anything."""

from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from llmray.job.errors import ModelError
from llmray.model.fit import near


def reach(reference: str, revision: str | None = None) -> dict[str, Any]:
    """What `from_pretrained` must be told: nothing for a folder or a hub that answers, else to use its cache.

    Asked once and briefly: `transformers` would try for half a minute for every file.  Raises `ModelError` when there
    is neither network nor cache.
    """
    if Path(reference).is_dir() or not (trouble := _trouble()):
        return {}
    try:
        cached = try_to_load_from_cache(reference, "config.json", revision=revision)
    except HFValidationError:
        cached = None
    if isinstance(cached, str):
        return {"local_files_only": True}
    raise ModelError(
        f"{reference}: no such folder, and as a hub id it cannot be fetched: {constants.ENDPOINT} cannot be reached"
        f" from here ({trouble}) and the cache does not hold it; give a folder in Hugging Face layout{near(reference)}"
    )


def _trouble() -> str:
    """Why the hub cannot be asked; empty when it can."""
    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        httpx.head(constants.ENDPOINT, timeout=10)
    except httpx.TransportError as error:
        return str(error) or type(error).__name__
    return ""
