"""Documents → blocks of one length.  It does not know what the ids mean."""

from collections.abc import Iterable, Sequence


def pack(documents: Iterable[Sequence[int]], seq_len: int, end: int) -> list[list[int]]:
    """Join documents, each closed by `end`, and cut them into blocks of `seq_len`; only the last may be shorter."""
    flat = [i for ids in documents for i in (*ids, end)]
    return [flat[at : at + seq_len] for at in range(0, len(flat), seq_len)]
