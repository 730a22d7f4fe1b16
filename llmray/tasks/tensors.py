"""Ragged rows of ids → padded tensors.  It does not know what the ids mean."""

from collections.abc import Sequence

import numpy as np
import torch

MULTIPLE = 8
"""Widths are rounded up to this, so that few distinct shapes occur."""


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Stack rows of ids into (rows, longest rounded up) filled with `value` on the right."""
    width = -(-max((len(row) for row in rows), default=1) // MULTIPLE) * MULTIPLE
    out = np.full((len(rows), width), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


def ids_and_mask(rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, both (rows, width)."""
    ids = padded(rows, pad)
    lengths = torch.tensor([len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}
