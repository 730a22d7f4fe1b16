"""Documents → blocks of one length.  It does not know what the ids mean."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmray.corpus.record import Columns

MOST_EMPTY = 0.01
"""Share of all blocks' tokens that whole documents may leave empty."""

Documents: TypeAlias = Iterable[Sequence[int] | NDArray[np.int32]]


def pack(documents: Documents, seq_len: int, end: int) -> list[NDArray[np.int32]]:
    """Join documents, each closed by `end`, and cut them into blocks of `seq_len`; only the last may be shorter.

    Blocks are parts of one array, not copies.
    """
    flat, _ = _joined(documents, end)
    return [flat[at : at + seq_len] for at in range(0, len(flat), seq_len)]


def pack_best_fit(documents: Documents, seq_len: int, end: int) -> Columns:
    """Put documents, each closed by `end`, into blocks of at most `seq_len` tokens, whole wherever they fit into one.

    A document longer than a block is cut after every `seq_len` tokens, and where whole ones would leave more than
    `MOST_EMPTY` of the blocks empty a few are cut to fill them; a cut document's pieces then count as documents.  No
    token is left out.  Columns: `input_ids`, and `lengths`, those of the documents in each block, from which positions
    and a block-diagonal mask follow.  Documents keep their order within a block, and blocks that of their first ones.
    """
    flat, lengths = _joined(documents, end)
    pieces = _pieces(lengths, seq_len)
    pieces, blocks = _filled(pieces, best_fit(pieces, seq_len), seq_len)
    order = np.argsort(blocks, kind="stable")
    parts, held = _split(flat, pieces), np.bincount(blocks)
    return {
        "input_ids": [np.concatenate([parts[at] for at in block]) for block in _split(order, held)],
        "lengths": _split(pieces[order].astype(np.int32), held),
    }


def best_fit(lengths: NDArray[np.int64], seq_len: int) -> NDArray[np.int64]:
    """Which block each document goes to: the longest first, each to the fullest block that has room for it.

    `lengths` are from 1 to `seq_len`.  Best-fit decreasing (https://arxiv.org/abs/2404.10830); open blocks are kept by
    their room, and the rooms that occur as bits of one number, so that a document costs no search.
    """
    by_room: list[list[int]] = [[] for _ in range(seq_len)]
    blocks, count, rooms = np.empty(len(lengths), dtype=np.int64), 0, 0
    order = np.argsort(-lengths, kind="stable")
    for at, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            block = by_room[room].pop()
            rooms ^= 0 if by_room[room] else 1 << room
        else:
            room, block, count = seq_len, count, count + 1
        blocks[at] = block
        if left := room - length:
            by_room[left].append(block)
            rooms |= 1 << left
    return _numbered(blocks)


def _filled(
    lengths: NDArray[np.int64], blocks: NDArray[np.int64], seq_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same, but with at most `MOST_EMPTY` of the blocks empty: the documents of the emptiest blocks are cut to fill
    the widest rooms in the others."""
    used = np.bincount(blocks, weights=lengths).astype(np.int64)
    enough = max(-(-used.sum() // seq_len), int(used.sum() / (1 - MOST_EMPTY)) // seq_len)
    if len(used) <= enough:
        return lengths, blocks
    fullest = np.argsort(-used, kind="stable")
    cut = np.flatnonzero(np.isin(blocks, fullest[enough:]))
    rooms = fullest[:enough][::-1]
    ends, full = np.cumsum(lengths[cut]), np.cumsum(seq_len - used[rooms])
    stops = np.union1d(ends, full[full < ends[-1]])  # where a document ends, or the room that it goes to
    pieces = np.diff(stops, prepend=0)
    places = np.concatenate([np.delete(np.arange(len(lengths)), cut), cut[np.searchsorted(ends, stops)]])
    order = np.argsort(places, kind="stable")
    found = np.concatenate([np.delete(blocks, cut), rooms[np.searchsorted(full, stops)]])[order]
    return np.concatenate([np.delete(lengths, cut), pieces])[order], _numbered(found)


def _numbered(blocks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Blocks numbered in the order of their first documents."""
    _, first, block = np.unique(blocks, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[block]


def _joined(documents: Documents, end: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """All ids, each document closed by `end`, and the documents' lengths with it."""
    closing = np.array([end], dtype=np.int32)
    parts = [part for ids in documents for part in (np.asarray(ids, dtype=np.int32), closing)]
    lengths = np.array([len(ids) + 1 for ids in parts[::2]], dtype=np.int64)
    return np.concatenate(parts) if parts else closing[:0], lengths


def _pieces(lengths: NDArray[np.int64], seq_len: int) -> NDArray[np.int64]:
    """The lengths when every document is cut after every `seq_len` tokens."""
    counts = -(-lengths // seq_len)
    pieces = np.full(counts.sum(), seq_len)
    pieces[np.cumsum(counts) - 1] = lengths - (counts - 1) * seq_len
    return pieces


def _split(flat: NDArray[Any], lengths: NDArray[np.int64]) -> list[NDArray[Any]]:
    return [flat[a:b] for a, b in pairwise([0, *np.cumsum(lengths).tolist()])]
