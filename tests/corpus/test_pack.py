"""Packing loses nothing; contiguous blocks are full but for the last, best-fit blocks nearly so."""

import gzip
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmray.corpus.pack import best_fit, pack, pack_best_fit

DOCUMENTS = st.lists(st.lists(st.integers(3, 9), max_size=20))


def plain(arrays):
    return [array.tolist() for array in arrays]


def test_by_hand():
    assert plain(pack([[5, 6, 7], [8]], 4, 2)) == [[5, 6, 7, 2], [8, 2]]
    assert plain(pack([[1, 2, 3]], 2, 0)) == [[1, 2], [3, 0]]
    assert plain(pack([[], [1]], 4, 9)) == [[9, 1, 9]]
    assert pack([], 4, 2) == []


def test_ids_take_32_bits():
    assert pack([np.array([5, 6], dtype=np.int64), [7]], 8, 2)[0].dtype == np.int32


@given(DOCUMENTS, st.integers(1, 16))
def test_nothing_is_lost(documents, seq_len):
    blocks = pack(documents, seq_len, 2)
    assert [i for b in blocks for i in b] == [i for d in documents for i in [*d, 2]]
    assert all(len(block) == seq_len for block in blocks[:-1])


def test_best_fit_by_hand():
    assert best_fit(np.array([3, 5, 2, 6, 1, 3]), 8).tolist() == [0, 0, 1, 1, 2, 2]  # 5+3, 6+2, 3+1
    assert best_fit(np.array([], dtype=np.int64), 8).tolist() == []
    assert best_fit(np.array([4, 4, 4]), 4).tolist() == [0, 1, 2]


def test_whole_documents_by_hand():
    packed = pack_best_fit([[5, 6], [3], [4, 4, 4, 4, 4]], 4, 2)
    assert plain(packed["input_ids"]) == [[5, 6, 2], [3, 2, 4, 2], [4, 4, 4, 4]]
    assert plain(packed["lengths"]) == [[3], [2, 2], [4]]
    assert pack_best_fit([], 4, 2) == {"input_ids": [], "lengths": []}


def test_a_document_is_cut_to_fill_what_would_stay_empty():
    """Three documents of 5 need three blocks of 8; of 15 tokens two are enough, and one document is cut for it."""
    packed = pack_best_fit([[11, 12, 13, 14], [21, 22, 23, 24], [31, 32, 33, 34]], 8, 2)
    assert plain(packed["input_ids"]) == [[11, 12, 13, 14, 2, 34, 2], [21, 22, 23, 24, 2, 31, 32, 33]]
    assert plain(packed["lengths"]) == [[5, 2], [5, 3]]


@given(DOCUMENTS, st.integers(1, 16))
def test_whole_documents_lose_nothing(documents, seq_len):
    """Every token is a number of its own, so that the pieces of a document can be put together again."""
    ends = np.cumsum([len(document) + 1 for document in documents])
    numbered = [np.arange(end - len(document) - 1, end - 1) for document, end in zip(documents, ends, strict=True)]
    packed = pack_best_fit(numbered, seq_len, -1)
    for ids, lengths in zip(packed["input_ids"], packed["lengths"], strict=True):
        assert len(ids) == lengths.sum() <= seq_len
        for piece in np.split(ids, np.cumsum(lengths)[:-1]):  # a run of numbers, the last of a document closed
            body = piece[piece != -1]
            assert (np.diff(body) == 1).all()
            assert len(body) == len(piece) or piece[-1] == -1
    found = np.concatenate([*packed["input_ids"], np.empty(0, np.int32)])
    assert np.count_nonzero(found == -1) == len(documents)
    assert sorted(found[found != -1]) == [number for document in numbered for number in document]


@given(st.lists(st.integers(1, 64), min_size=60), st.integers(64, 80))
def test_at_most_a_hundredth_stays_empty(lengths, seq_len):
    packed = pack_best_fit([[3] * (length - 1) for length in lengths], seq_len, 2)
    blocks, tokens = len(packed["input_ids"]), sum(lengths)
    assert tokens >= 0.99 * blocks * seq_len or blocks == -(-tokens // seq_len)


@given(st.lists(st.integers(1, 16)))
def test_two_blocks_that_fit_into_one_are_never_left(lengths):
    filled = np.bincount(best_fit(np.array(lengths, dtype=np.int64), 16), weights=lengths)
    assert sum(sorted(filled)[:2]) > 16 or len(filled) < 2


def test_real_documents_leave_hardly_any_padding(shared_data):
    with gzip.open(shared_data / "squad" / "dev-v1.1.json.gz", "rt") as file:
        contexts = [p["context"] for article in json.load(file)["data"] for p in article["paragraphs"]]
    for seq_len, most_cuts in ((256, 0.1), (512, 0.01), (1024, 0.01)):
        packed = pack_best_fit([np.zeros(len(text.split()), dtype=np.int32) for text in contexts], seq_len, 2)
        assert sum(map(len, packed["input_ids"])) == sum(len(context.split()) + 1 for context in contexts)
        assert sum(map(len, packed["input_ids"])) > 0.99 * seq_len * len(packed["input_ids"])
        assert sum(map(len, packed["lengths"])) - len(contexts) < most_cuts * len(contexts)
