"""How much of a text says again what it has said: shares of lines, paragraphs and word n-grams.

It does not know how much is too much.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""An odd constant of high entropy (2⁶⁴ over the golden ratio) that mixes the hashes of an n-gram's words."""


def repeated(parts: Sequence[str]) -> tuple[float, float]:
    """Shares of parts, and of their characters, that equal an earlier part; there must be one at least."""
    distinct = set(parts)
    chars, distinct_chars = sum(map(len, parts)), sum(map(len, distinct))
    return (len(parts) - len(distinct)) / len(parts), (chars - distinct_chars) / chars


class NGrams:
    """The n-grams of a text's words, told apart by 64-bit hashes.  Shares are of the words' characters."""

    def __init__(self, words: Sequence[str]) -> None:
        self.hashes = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
        self.chars = np.fromiter(map(len, words), np.int64, len(words))

    def top(self, n: int) -> float:
        """Share that the most frequent n-gram makes up, each time it occurs; the longest, if there are several.

        Where it overlaps with itself it counts each time, so that the share may exceed 1.
        """
        _, first, counts = np.unique(self._keys(n), return_index=True, return_counts=True)
        most = counts.max(initial=0)
        if most < 2:
            return 0.0
        longest = max(self.chars[i : i + n].sum() for i in first[counts == most])
        return float(most * longest / self.chars.sum())

    def again(self, n: int) -> float:
        """Share that lies in n-grams which occurred before, whatever lies in several of them counted once.

        It never grows with n: a longer n-gram that occurs again is made of shorter ones that do.
        """
        keys = self._keys(n)
        _, first = np.unique(keys, return_index=True)
        starts = np.delete(np.arange(len(keys)), first)
        covered = np.zeros(len(self.chars), bool)
        for offset in range(n):
            covered[starts + offset] = True
        return float(self.chars[covered].sum() / self.chars.sum())

    def _keys(self, n: int) -> NDArray[np.uint64]:
        """A hash for each place where an n-gram starts: a polynomial in the hashes of its words, modulo 2⁶⁴."""
        count = max(len(self.hashes) - n + 1, 0)
        keys = np.zeros(count, np.uint64)
        for offset in range(n):
            keys = keys * MULTIPLIER + self.hashes[offset : offset + count]
        return keys
