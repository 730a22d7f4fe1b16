"""Packing loses nothing and fills every block but the last."""

from hypothesis import given
from hypothesis import strategies as st

from llmray.corpus.pack import pack


def test_by_hand():
    assert pack([[5, 6, 7], [8]], 4, 2) == [[5, 6, 7, 2], [8, 2]]
    assert pack([[1, 2, 3]], 2, 0) == [[1, 2], [3, 0]]
    assert pack([[], [1]], 4, 9) == [[9, 1, 9]]
    assert pack([], 4, 2) == []


@given(st.lists(st.lists(st.integers(3, 9), max_size=20)), st.integers(1, 16))
def test_nothing_is_lost(documents, seq_len):
    blocks = pack(documents, seq_len, 2)
    assert [i for b in blocks for i in b] == [i for d in documents for i in [*d, 2]]
    assert all(len(block) == seq_len for block in blocks[:-1])
