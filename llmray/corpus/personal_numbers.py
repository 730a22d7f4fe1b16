"""Bank, card and telephone numbers in text, and the runs of digits in which to look for them.

It does not know what becomes of a number that is found.  A checksum tells a bank or card number from any other; a
telephone number has none, and is judged by the numbering plans of libphonenumber and by the words beside it.
"""

import re
from collections.abc import Iterator, Sequence

from phonenumbers import SUPPORTED_REGIONS, Leniency, PhoneNumberMatcher
from stdnum import iban, luhn

from llmray.corpus.personal_ids import Span, identities

REGIONS = frozenset(SUPPORTED_REGIONS)
"""ISO 3166 codes of the regions whose numbering plan is known."""

LEAD_CHARS = 8
"""What a number may have before its first digit: `RCCMNL` of a codice fiscale, `+ (`."""

# Six digits with no more than six other characters between any two: prose has few, and so costs one scan.
_RUN = re.compile(r"\d(?:[^\d\n]{0,6}\d){5,}[^\d\n]{0,6}")


def runs(text: str) -> Iterator[Span]:
    """Stretches of text in which numbers of six digits and more may lie."""
    last = 0
    for match in _RUN.finditer(text):
        yield max(last, match.start() - LEAD_CHARS), match.end()
        last = match.end()


_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d\d(?:[ -]?[A-Z\d]){11,30}(?!\w)", re.IGNORECASE)


def ibans(text: str, start: int, stop: int, _: Sequence[str]) -> Iterator[Span]:
    """ISO 13616, checked by country; words in letters or figures that follow are cut off again."""
    for match in _IBAN.finditer(text, start, stop):
        ends = [match.end(), *(match.start() + gap.start() for gap in re.finditer("[ -]", match.group()))]
        end = next((end for end in sorted(ends, reverse=True) if iban.is_valid(text[match.start() : end])), None)
        if end is not None:
            yield match.start(), end


_CARD = re.compile(
    r"(?<!\w)(?<!\d[-.])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}|\d{12,19})(?!\w|[-.]\d)"
)
# Lengths and prefixes of https://en.wikipedia.org/wiki/Payment_card_number (ISO/IEC 7812).
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-59]|[689]\d)\d{11,16}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12,15}|(?:1800|2131)\d{11}"  # JCB
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12,15}"  # Discover
    r"|62\d{14,17}"  # UnionPay
    r"|(?:50\d\d|5[678]\d\d|6304|6390|6759|676[1-3])\d{8,15}"  # Maestro
)


def cards(text: str, start: int, stop: int, _: Sequence[str]) -> Iterator[Span]:
    """In one block or in groups of four (American Express and Diners Club: 4-6-5, 4-6-4); with Luhn's check."""
    for match in _CARD.finditer(text, start, stop):
        digits = re.sub("[ -]", "", match.group())
        if _ISSUED.fullmatch(digits) and luhn.is_valid(digits):
            yield match.span()


_PHONE = re.compile(r"[+(]?\(?\d(?:[ \xa0().x/–-]{0,4}\d){5,40}")
_SIX = re.compile(r"(?:\D*\d){6}")
_HEAD_CHARS, _TAIL_CHARS = 40, 16
"""How far before a number a word for telephone may begin; how far behind it an extension ("ext. 123") may end."""
_TRIES = 50
"""Of libphonenumber's on one candidate: a bound on its time."""

_WORD = (
    r"(?:(?:tele)?(?:ph|f)one?s?|t[ée]l(?:efon\w*|[ée]fonos?|[ée]phones?)?|fax|mob(?:ile?|il)|cell(?:ulare)?|m[óo]vil"
    r"|handy|portable|whatsapp|call|dial)\b"
)
# Not beyond an address, nor from or beyond a placeholder (`<PHONE>`): what is masked finds no more than what was not.
_BEFORE = re.compile(rf"(?<![\w./<]){_WORD}[^\d@<]{{0,20}}\Z", re.IGNORECASE)
_AFTER = re.compile(rf"[\s,;(\\-]{{0,4}}(?:office\b|{_WORD})", re.IGNORECASE)
_DATES = re.compile(r"\(?(?:1\d|20)\d\d ?[/–-] ?\d{2,4}\)?|\d{1,2}([./-])\d{1,2}\1(?:\d\d){1,2}|\d{4}([./-])\d\d\2\d\d")

# Without such a word: eight digits and more, with an area code in brackets, a trunk prefix or three groups; no block of
# digits but a long one, no decimal, no book ("0-8101-1740-1" and any other that ends in one digit alone), no part of
# an address, of a longer number or of a range.
_UNLABELLED = re.compile(
    r"(?<!\w)(?<!\w[./–-])(?<!\d[,:])(?!0\.)(?=(?:\D*\d){8})"
    r"(?:\(\d{1,5}\)|0\d*[ \xa0()./-]|0\d{9}|(?:\d+[ \xa0.-]){2}\d)[^–]*(?<![ -]\d)\Z"
)
_GOES_ON = re.compile(r"\w|[./:–-]\w")
_BOOK = re.compile(r"\b(?:isbn|issn|oclc|doi)(?:-?1[03])?\W{0,5}\Z", re.IGNORECASE)


def phones(text: str, start: int, stop: int, regions: Sequence[str]) -> Iterator[Span]:
    """Numbers in international form; as those of `regions` are grouped at home; and, beside a word for telephone
    ("call", "Tel.", "Fax"), any that are possible there."""
    for match in _PHONE.finditer(text, start, stop):
        leniency = _leniency(text, match)
        if leniency is None:
            continue
        for region in regions or (None,):  # the international form is of no region
            spans = list(_matches(text, match, region, leniency))
            yield from spans
            if any(span_stop - span_start >= len(match.group()) for span_start, span_stop in spans):
                break  # nothing is left for another region


def _leniency(text: str, match: re.Match[str]) -> int | None:
    """How much like a telephone number a candidate must be, if it can be one at all."""
    head = text[max(0, match.start() - _HEAD_CHARS) : match.start()]
    if _DATES.fullmatch(match.group()) or _BOOK.search(head):
        return None
    if _BEFORE.search(head) or _AFTER.match(text, match.end()):
        return Leniency.POSSIBLE
    if "+" in match.group():
        return Leniency.VALID
    return Leniency.STRICT_GROUPING if _is_alone(text, *match.span()) else None


def _matches(text: str, match: re.Match[str], region: str | None, leniency: int) -> Iterator[Span]:
    """What libphonenumber makes of a candidate, its extension and the character before, which may rule it out."""
    at = max(0, match.start() - 1)
    for one in PhoneNumberMatcher(text[at : match.end() + _TAIL_CHARS], region, leniency, _TRIES):
        span = at + one.start, at + one.end
        within = span[0] < match.end() and _SIX.match(one.raw_string)
        if within and (leniency != Leniency.STRICT_GROUPING or _is_alone(text, *span)):
            yield span


def _is_alone(text: str, start: int, stop: int) -> bool:
    return bool(_UNLABELLED.match(text, start, stop)) and not _GOES_ON.match(text, stop)


NUMBERS = {"iban": ibans, "card": cards, "national_id": identities, "phone": phones}
"""Kind of number → its spans in a stretch of a text, `(text, start, stop, regions)`."""
