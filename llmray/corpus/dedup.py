"""Texts → which of them are copies, exact or near, of an earlier one: MinHash and locality-sensitive hashing.

It does not know where the texts are: a pass over them makes a few keys of each, and the keys alone are compared.

Texts are compared by their `words`.  Near copies share runs of `NGRAM` words, and are found with FineWeb's setting
(https://arxiv.org/abs/2406.17557, after https://arxiv.org/abs/2107.06499): 112 MinHashes in `BANDS` bands of `ROWS`.
Where s is the share of two texts' runs that both have (Jaccard), they have a key in common, and so are found, with
probability 1 - (1 - s^8)^14:

    s      0.5   0.6   0.7   0.75  0.8   0.85  0.9   0.95
    found  0.05  0.21  0.57  0.77  0.92  0.99  1.00  1.00

Keys are the same in every process and on every machine.  Candidates are not compared once more: all that were found in
benchmarks/dedup.py are edited copies, and a second look takes five times the keys' memory.  Numpy's permutations take
less time than finding the words, so that a package for them would gain little.
"""

import unicodedata

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from xxhash import xxh3_64_intdigest

NGRAM = 5
BANDS = 14
ROWS = 8

WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Scripts that put no spaces between words, as the Unicode names of their characters begin."""

_CHUNK = 512
"""n-grams that are hashed at a time: 112 numbers of 4 bytes for each stay in a core's cache."""

_raw = np.random.PCG64(20240625).random_raw  # the bare generator: its stream, unlike a distribution's, is promised
_RADIX = _raw() | np.uint64(1)
_SCALE, _SHIFT = _raw(2 * BANDS * ROWS).astype(np.uint32).reshape(2, -1) | np.array([[1], [0]], np.uint32)
_WEIGHT = _raw(ROWS) | np.uint64(1)


class _Spacing(dict[int, str]):
    """A table for `str.translate` that finds out about a character when it first meets it."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        if kind == "Cf":  # soft hyphens, joiners, byte-order marks: no part of what is written
            self[code] = ""
        elif kind[0] not in "LMN":
            self[code] = " "
        else:
            alone = unicodedata.name(character, "").startswith(WITHOUT_SPACES)
            self[code] = f" {character} " if alone else character
        return self[code]


_SPACING = _Spacing()


def words(text: str) -> list[bytes]:
    """The words by which texts are compared, in UTF-8: runs of letters, marks and digits, in lower case and NFKC.

    Punctuation, symbols and spacing count for nothing, unless there is nothing else.  In scripts without spaces each
    character is a word.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    return plain.translate(_SPACING).encode().split() or plain.encode(errors="replace").split()


def word_hashes(found: list[bytes]) -> np.ndarray:
    """A 64-bit hash of each word: (words,) uint64."""
    return np.fromiter(map(xxh3_64_intdigest, found), np.uint64, len(found))


def ngrams(hashes: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit hash of each run of n words, from the words' hashes: (words - n + 1,) uint64, none of fewer words."""
    runs = hashes
    for at in range(1, n):
        runs = runs[:-1] * _RADIX + hashes[at:]
    return runs


def exact(text: str) -> int:
    """64-bit hash of a text's words: texts that differ only in case, spacing or punctuation have the same.

    Among a hundred million different texts two have the same with a probability of 1 in 4,000.
    """
    return xxh3_64_intdigest(b" ".join(words(text)))


def signature(text: str) -> np.ndarray:
    """MinHashes of a text's runs of `NGRAM` words, a shorter text being one run: (BANDS * ROWS,) uint32."""
    hashes = word_hashes(words(text))
    runs = ngrams(hashes, min(NGRAM, len(hashes)))
    high = (runs >> np.uint64(32)).astype(np.uint32)
    least = np.full(BANDS * ROWS, np.iinfo(np.uint32).max, np.uint32)
    for at in range(0, len(high), _CHUNK):
        permuted = np.multiply.outer(high[at : at + _CHUNK], _SCALE)
        permuted += _SHIFT
        np.minimum(least, permuted.min(0), out=least)
    return least


def bands(signatures: np.ndarray) -> np.ndarray:
    """Keys of (documents, BANDS * ROWS) signatures, of which near copies share one: (documents, BANDS) uint64."""
    return (signatures.reshape(-1, BANDS, ROWS) * _WEIGHT).sum(2)


def duplicates(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Which documents to drop, and for which other each: (dropped, 2), the dropped ascending.

    `keys` are those of all documents, (documents, keys) uint64: `bands`, or `exact` alone or beside them.  Documents
    that have the same key in one column are copies, as are copies of copies; the one with the least `order`
    (documents,) stays.  Orders are distinct.  Beyond the keys it takes some 100 bytes a document.
    """
    documents = len(order)
    cluster = np.arange(documents)
    for column in keys.T:
        by_key = np.argsort(column)
        same = np.flatnonzero(column[by_key[1:]] == column[by_key[:-1]])
        cluster = _joined(cluster, by_key[same], by_key[same + 1])
    latest_first = np.argsort(order)[::-1]
    earliest = np.zeros(documents, np.int64)
    earliest[cluster[latest_first]] = latest_first  # of several values for a place the last one stays
    kept = earliest[cluster]
    dropped = np.flatnonzero(kept != np.arange(documents))
    return np.column_stack((dropped, kept[dropped]))


def _joined(cluster: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Every document's cluster, once those of the documents `one` and `other` are joined."""
    if not len(one):
        return cluster
    count = int(cluster.max()) + 1
    links = coo_array((np.ones(len(one), bool), (cluster[one], cluster[other])), shape=(count, count))
    return connected_components(links, directed=False)[1][cluster]
