"""Evaluation texts → whether a training text holds a part of one.

It does not know what is done with such a text.  As GPT-3's authors did (https://arxiv.org/abs/2005.14165, appendix C),
it looks for runs of at most 13 and at least 8 words.
"""

from collections.abc import Iterable

import numpy as np

from llmray.corpus.dedup import ngrams, word_hashes, words

NGRAM = 13
LEAST_WORDS = 8


class Contamination:
    """Looks for runs of `n` words of evaluation texts; for a text of fewer, but at least 8 words, as a whole.

    Words are those of `llmray.corpus.dedup.words`: case, spacing and punctuation count for nothing, and a Chinese
    character is a word.  `too_short` counts the evaluation texts that are not looked for.
    """

    def __init__(self, texts: Iterable[str], n: int = NGRAM) -> None:
        self._least = min(n, LEAST_WORDS)
        hashed = [word_hashes(words(text)) for text in texts]
        sought = [hashes for hashes in hashed if len(hashes) >= self._least]
        self.too_short = len(hashed) - len(sought)
        self._lengths = sorted({min(n, len(hashes)) for hashes in sought}, reverse=True)
        self._runs = _Hashes([ngrams(hashes, min(n, len(hashes))) for hashes in sought])
        self._parts = _Hashes([ngrams(hashes, self._least) for hashes in sought])  # every run begins with one

    def found(self, text: str) -> str | None:
        """The first of the longest runs of words that a text shares with an evaluation text; None where it shares none.

        Of a billion runs that no evaluation text has, looked for among ten million, one is taken for one of theirs
        with a probability of 1 in 2,000.
        """
        spoken = words(text)
        hashes = word_hashes(spoken)
        if not len(self._parts.among(ngrams(hashes, self._least))):  # the rule, and one look instead of six
            return None
        for length in self._lengths:
            at = self._runs.among(ngrams(hashes, length))
            if len(at):
                return b" ".join(spoken[at[0] : at[0] + length]).decode()
        return None


class _Hashes:
    """A set of 64-bit hashes, in at most 40 bytes each."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self._sorted = np.unique(np.concatenate([np.empty(0, np.uint64), *arrays]))
        self._shift = np.uint64(64 - (16 * len(self._sorted) + 1).bit_length())
        self._begun = np.zeros(1 << (64 - int(self._shift)), bool)
        self._begun[self._sorted >> self._shift] = True

    def among(self, hashes: np.ndarray) -> np.ndarray:
        """Places of those `hashes` that are in the set, ascending."""
        places = np.flatnonzero(self._begun[hashes >> self._shift])  # of sixteen that are not in it one goes on
        wanted = hashes[places]
        found = np.searchsorted(self._sorted, wanted).clip(max=len(self._sorted) - 1)
        return places[self._sorted[found] == wanted]
