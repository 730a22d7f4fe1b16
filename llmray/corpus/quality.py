"""Published rules by which web text is told from what is hardly worth learning from.

It does not know where texts come from or what becomes of those that break a rule.  The rules are

- C4's: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.2, but for its list of bad words;
- Gopher's: Rae et al. 2021, https://arxiv.org/abs/2112.11446, appendix A.1.1, of repetition in table A1;
- FineWeb's: Penedo et al. 2024, https://arxiv.org/abs/2406.17557, section 3.6, and the last one of its released code.

They were made for English.  Elsewhere those are left out that make no sense, as FineWeb-2 does or softens them by
language (https://arxiv.org/abs/2506.20920): stop words where a language has no list, the lengths of words and lines in
scripts without spaces, and marks at the end of sentences in languages that write none.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TypeAlias

from llmray.corpus.language import UNPUNCTUATED, is_unspaced, words_of
from llmray.corpus.repetition import NGrams, repeated
from llmray.job.data import C4, FineWeb, Gopher, Quality, Repetition

Rules: TypeAlias = Iterator[tuple[str, bool]]
"""A rule is a row: the reason it gives, and whether a page breaks it, which is worked out when its turn comes."""

BULLETS = ("•", "-", "*")
ELLIPSES = ("...", "…")
FULL_STOPS = "。！？．｡؟۔।॥።။។"
FINAL = frozenset(".!?" + FULL_STOPS + "\"'”’»」』")
"""What a sentence ends with: C4's period, exclamation mark, question mark and end quotation mark, in any script."""

UNWANTED = (
    *("javascript", "terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)

_BLANK = re.compile(r"\n{3,}")
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_SENTENCE = re.compile(rf"[.!?][\"'”’»)\]]*(?=\s|$)|[{FULL_STOPS}]")


@dataclass(frozen=True)
class Page:
    """A text with at least one word, its language, and the views of it that rules take; each is made once."""

    text: str
    language: str

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @cached_property
    def spaced(self) -> bool:
        """Whether there are spaces between words."""
        return not is_unspaced(self.text, self.words)

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without the space around them."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What stands between blank lines."""
        return [paragraph for paragraph in map(str.strip, self.text.split("\n\n")) if paragraph]


def inspect(text: str, language: str, quality: Quality) -> tuple[str, str | None]:
    """The text with C4's edits, and None; or the text as it was, and the reason of the first rule that it breaks.

    Rules judge what the edits leave, so that all of them hold for what is kept.
    """
    edited = c4_lines(text, language, quality.c4) if quality.c4 else text
    page = Page(edited, language)
    rules = chain(
        c4(text, edited, quality.c4) if quality.c4 else (),
        gopher(page, quality.gopher) if quality.gopher else (),
        repetition(page, quality.repetition) if quality.repetition else (),
        fineweb(page, quality.fineweb) if quality.fineweb else (),
    )
    reason = next((reason for reason, broken in rules if broken), None)
    return (text if reason else edited), reason


def c4_lines(text: str, language: str, limits: C4) -> str:
    """The lines that C4 keeps, without citation marks; of blank lines between them one stays."""
    marked = limits.final_marks and language not in UNPUNCTUATED
    lines = (_CITATION.sub("", line).rstrip() for line in text.split("\n"))
    kept = (line for line in lines if not line or _is_kept(line, marked, limits))
    return _BLANK.sub("\n\n", "\n".join(kept)).strip("\n")


def _is_kept(line: str, marked: bool, limits: C4) -> bool:
    if marked and (line[-1] not in FINAL or line.endswith(ELLIPSES)):
        return False
    words, lower = words_of(line), line.lower()
    fits = len(words) >= limits.min_line_words and max(map(len, words)) <= limits.max_word_chars
    return fits and not any(phrase in lower for phrase in UNWANTED)


def c4(text: str, edited: str, limits: C4) -> Rules:
    """C4's rules for a page, given before and after its lines were edited."""
    yield "c4: lorem ipsum", "lorem ipsum" in text.lower()
    yield "c4: curly bracket", "{" in text and not limits.curly_brackets
    yield "c4: too few sentences", sum(map(sentences_in, edited.split("\n"))) < limits.min_sentences


def gopher(page: Page, limits: Gopher) -> Rules:
    """Gopher's rules of quality."""
    words, lines = page.words, page.lines
    yield "gopher: too few words", len(words) < limits.min_words
    yield "gopher: too many words", len(words) > limits.max_words
    if page.spaced:
        mean_chars = sum(map(len, words)) / len(words)
        yield "gopher: words too short", mean_chars < limits.min_mean_word_chars
        yield "gopher: words too long", mean_chars > limits.max_mean_word_chars
    hashes, ellipses = page.text.count("#"), sum(map(page.text.count, ELLIPSES))
    yield "gopher: too many hashes", hashes / len(words) > limits.max_symbols_per_word
    yield "gopher: too many ellipses", ellipses / len(words) > limits.max_symbols_per_word
    yield "gopher: too many bullets", share(line.startswith(BULLETS) for line in lines) > limits.max_bullet_lines
    yield "gopher: too many cut lines", share(line.endswith(ELLIPSES) for line in lines) > limits.max_ellipsis_lines
    yield "gopher: too few alphabetic words", alphabetic(words) < limits.min_alphabetic_words
    if page.language in limits.stop_words:
        found = stop_words_in(words, limits.stop_words[page.language])
        yield "gopher: too few stop words", found < limits.min_stop_words


def repetition(page: Page, limits: Repetition) -> Rules:
    """Gopher's rules of repetition."""
    lines, line_chars = repeated(page.lines)
    yield "gopher: duplicate lines", lines > limits.max_duplicate_lines
    yield "gopher: characters of duplicate lines", line_chars > limits.max_duplicate_line_chars
    paragraphs, paragraph_chars = repeated(page.paragraphs)
    yield "gopher: duplicate paragraphs", paragraphs > limits.max_duplicate_paragraphs
    yield "gopher: characters of duplicate paragraphs", paragraph_chars > limits.max_duplicate_paragraph_chars
    ngrams = NGrams(page.words)
    for n, most in limits.top_ngrams.items():
        yield f"gopher: top {n}-gram", ngrams.top(n) > most
    for n, most in sorted(limits.duplicate_ngrams.items()):
        found = ngrams.again(n)
        yield f"gopher: duplicate {n}-grams", found > most
        if found <= min(limits.duplicate_ngrams.values()):  # and longer ones are no more
            break


def fineweb(page: Page, limits: FineWeb) -> Rules:
    """FineWeb's own rules."""
    lines = page.lines
    if page.language not in UNPUNCTUATED:
        punctuated = share(line[-1] in FINAL for line in lines)
        yield "fineweb: too few punctuated lines", punctuated <= limits.min_punctuated_lines
    if page.spaced:
        short = share(len(line) < limits.short_line_chars for line in lines)
        yield "fineweb: too many short lines", short >= limits.max_short_lines
    yield "fineweb: characters of duplicate lines", repeated(lines)[1] >= limits.max_duplicate_line_chars
    newlines = page.text.count("\n") / len(page.words)
    yield "fineweb: too many line ends", newlines > limits.max_newlines_per_word


def share(chosen: Iterable[bool]) -> float:
    """The share of those that are true; there must be one at least."""
    flags = list(chosen)
    return sum(flags) / len(flags)


def sentences_in(line: str) -> int:
    """Sentences in a line: one for each final mark, one where there is none, and none in an empty line."""
    return max(len(_SENTENCE.findall(line)), 1) if line else 0


def alphabetic(words: Sequence[str]) -> float:
    """Share of words that have at least one letter."""
    mixed = [word for word in words if not word.isalpha()]
    return (len(words) - sum(not any(map(str.isalpha, word)) for word in mixed)) / len(words)


def stop_words_in(words: Sequence[str], stop_words: Iterable[str]) -> int:
    """How many of the stop words occur, as they are, at the start of a sentence or in capitals."""
    found = set(words)
    return sum(not found.isdisjoint((word, word.capitalize(), word.upper())) for word in stop_words)
