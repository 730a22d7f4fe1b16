"""Sums of cross-entropy over targets: smoothed, and from hidden states without ever holding all scores.

It does not know what is predicted.
"""

from typing import Any

import torch
from torch.nn.functional import linear

IGNORED = -100
CHUNK = 1024
"""Tokens whose scores exist at once."""


def evenly(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy if every class were as right as any other, summed over the targets; logits (…, classes).

    A model may give logits of the targets alone, in one dimension less than those of all places.
    """
    logits = logits.float()
    each = logits.logsumexp(-1) - logits.mean(-1)
    return (each * (labels != IGNORED)).sum() if each.shape == labels.shape else each.sum()


def chunked_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    bias: torch.Tensor | None = None,
    smoothing: float = 0.0,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """Summed cross-entropy of `hidden @ weight.T + bias` against labels, `chunk` places at a time.

    hidden (places, width), weight (classes, width), labels (places,); -100 is no target.  Scores of a chunk become the
    gradient of theirs in place and are gone before the next chunk's: chunk × classes numbers instead of
    places × classes, and no product is done twice.
    """
    learns = torch.is_grad_enabled()
    loss: torch.Tensor = _Chunked.apply(hidden, weight, bias, labels, smoothing, chunk, learns)
    return loss


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        smoothing: float,
        chunk: int,
        learns: bool,
    ) -> torch.Tensor:
        wanted = [learns and needed for needed in ctx.needs_input_grad[:3]]
        d_hidden, d_weight, d_bias = (
            torch.zeros_like(tensor, dtype=torch.float32) if want and tensor is not None else None
            for want, tensor in zip(wanted, (hidden, weight, bias), strict=True)
        )
        loss = torch.zeros((), device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            target, kept = labels[part].clamp(min=0)[:, None], (labels[part] != IGNORED)[:, None]
            logits = linear(hidden[part], weight, bias).float()
            total = logits.logsumexp(-1, keepdim=True)
            aimed = (1 - smoothing) * logits.gather(-1, target)
            if smoothing:
                aimed += smoothing * logits.mean(-1, keepdim=True)
            loss += ((total - aimed) * kept).sum()
            if not any(wanted):
                continue
            slope = logits.sub_(total).exp_()  # the softmax, less the target's distribution
            slope.scatter_add_(-1, target, torch.full_like(total, smoothing - 1))
            slope.sub_(smoothing / slope.shape[-1]).mul_(kept)
            if d_hidden is not None:
                d_hidden[part] = slope @ weight
            if d_weight is not None:
                d_weight += slope.t() @ hidden[part]
            if d_bias is not None:
                d_bias += slope.sum(0)
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[torch.Tensor | None, ...]:
        found = [None if saved is None else saved * slopes[0] for saved in ctx.saved_tensors]
        return (*found, None, None, None, None)
