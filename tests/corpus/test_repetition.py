"""Shares of what is said again, by hand and against the plainest way to count them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmray.corpus.repetition import NGrams, repeated


def top(text, n):
    return NGrams(text.split()).top(n)


def again(text, n):
    return NGrams(text.split()).again(n)


def test_parts_that_equal_an_earlier_one():
    assert repeated(["ab", "c", "ab", "ab"]) == (2 / 4, 4 / 7)
    assert repeated(["a", "b"]) == (0, 0)


def test_the_most_frequent_ngram():
    assert top("to be or not to be", 2) == 8 / 13  # "to be", twice
    assert top("a bc a x yy zzz yy zzz", 2) == 10 / 15  # "yy zzz", twice
    assert top("a b a b ccc ddd ccc ddd", 2) == 12 / 16  # of two, the longest
    assert top("a b c", 2) == 0
    assert top("a b c", 4) == 0


def test_what_lies_in_ngrams_that_occurred_before():
    assert again("a bb c a bb d", 2) == 3 / 8  # the second "a bb"
    assert again("a a a a a a", 5) == 5 / 6  # the second of two that overlap
    assert again("a b c", 2) == 0
    assert again("a b c", 5) == 0


def plainly(words, n):
    covered, seen = set(), set()
    for start in range(len(words) - n + 1):
        ngram = tuple(words[start : start + n])
        if ngram in seen:
            covered.update(range(start, start + n))
        seen.add(ngram)
    return sum(len(words[i]) for i in covered) / sum(map(len, words))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=1, max_size=40))
def test_any_words(words):
    shares = [NGrams(words).again(n) for n in range(1, 8)]
    assert shares == pytest.approx([plainly(words, n) for n in range(1, 8)])
    assert shares == sorted(shares, reverse=True)
