"""Ragged rows of ids → padded tensors, and passes of a model over them.  It does not know what the ids mean."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

MULTIPLE = 8
"""Widths are rounded up to this, so that few distinct shapes occur."""
PASS_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Most tokens of a pass, padding included, that bound its memory: a CPU gains nothing from more, a GPU needs them."""


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Stack rows of ids into (rows, longest rounded up) filled with `value` on the right."""
    width = _width(max((len(row) for row in rows), default=1))
    out = np.full((len(rows), width), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


def _width(longest: int) -> int:
    return -(-longest // MULTIPLE) * MULTIPLE


def ids_and_mask(rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, both (rows, width)."""
    ids = padded(rows, pad)
    lengths = torch.tensor([len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


def passes(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Places of rows, in runs of like length: `most` tokens with their padding, or a single longer row."""
    runs: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if runs and (len(runs[-1]) + 1) * _width(lengths[place]) <= most:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


@torch.inference_mode()
def read(
    model: Any, rows: Sequence[Sequence[int]], pad: int, told: Callable[[Any, torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """What a model says of each row of ids, however many there are.

    `told(outputs, ids)`: of a pass over `ids`, (some rows, width), a tensor whose first dimension are these rows.
    """
    found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for places in passes([len(row) for row in rows], PASS_TOKENS.get(model.device.type, PASS_TOKENS["cuda"])):
        batch = ids_and_mask([rows[place] for place in places], pad)
        outputs = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        for place, one in zip(places, told(outputs, batch["input_ids"]).float().cpu(), strict=True):
            found[place] = one
    return found
