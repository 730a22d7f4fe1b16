"""One text → a verdict: the text made uniform and either kept or dropped, with the reason.

It does not know where texts come from, whether they have been seen before, or what becomes of those that are dropped.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from unicodedata import normalize

import ftfy
from ftfy.chardata import CHARMAP_ENCODINGS

from llmray.corpus.language import identify
from llmray.corpus.quality import inspect
from llmray.job.data import Quality

REPAIRS = ftfy.TextFixerConfig(
    unescape_html=False,  # code and prose about HTML have entities
    fix_latin_ligatures=False,
    fix_character_width=False,  # Chinese and Japanese punctuation is wide
    uncurl_quotes=False,
    explain=False,
)


def _seen_as(first: int, last: int) -> str:
    """What the bytes `first` to `last` are taken for by those who do not know UTF-8, for a character class."""
    data = bytes(range(first, last + 1))
    return re.escape("".join(data.decode(encoding, "ignore") for encoding in CHARMAP_ENCODINGS))


_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u206a-\u206f\ufeff\ufff9-\ufffc\ud800-\udfff"
_FIRST, _LATER = _seen_as(0xC2, 0xF4), _seen_as(0x80, 0xBF)
_DAMAGED = re.compile(f"[{_CONTROL}{_FIRST}](?:(?<=[{_CONTROL}])|[{_LATER}\ufffd]|(?<=[ÂÃ]) )")
"""Lines without this need no repair: a control character, or what looks like a first byte of UTF-8 and a later one."""

_LINE_END = re.compile("\r\n?|[\f\u2028\u2029]")
_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
_INVISIBLE = re.compile("[\u00ad\u2060]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A text, why it is dropped (None: it is kept), and its language where that was asked.

    Reasons are names to count by; languages are ISO 639-1.
    """

    text: str
    reason: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges texts.  No `languages` means any; `min_score` is the least probability of the language."""

    languages: Collection[str] = ()
    min_score: float = 0.65
    quality: Quality | None = None

    def judge(self, text: str) -> Verdict:
        """The normalised text, edited as the rules ask, and the first reason to drop it."""
        text = normalise(text)
        if not text:
            return Verdict(text, "empty")
        if not self.languages and self.quality is None:
            return Verdict(text)
        language, score = identify(text)
        if self.languages and (language not in self.languages or score < self.min_score):
            reason = f"language: {language}" if score >= self.min_score else "language: unsure"
            return Verdict(text, reason, language)
        return Verdict(*(inspect(text, language, self.quality) if self.quality else (text, None)), language)


def normalise(text: str) -> str:
    """One form for texts that read the same; doing it again changes nothing.

    UTF-8 that was read as something else is repaired (https://ftfy.readthedocs.io), control characters and invisible
    hyphens go, spaces of every width but the ideographic become plain ones, lines end in "\\n" without white space
    before it, and letters are composed (NFC, https://www.unicode.org/reports/tr15).  Quotes, ligatures, wide
    characters, joiners and the space that begins a line stay.
    """
    while (tidy := _tidy(text)) != text:
        text = tidy
    return text


def _tidy(text: str) -> str:
    lines = _LINE_END.sub("\n", text).split("\n")
    text = "\n".join(ftfy.fix_text(line, REPAIRS) if _DAMAGED.search(line) else line for line in lines)
    text = normalize("NFC", _INVISIBLE.sub("", _SPACE.sub(" ", text)))
    return "\n".join(map(str.rstrip, text.split("\n"))).strip("\n")
