"""MediaWiki's markup (https://www.mediawiki.org/wiki/Help:Formatting) → plain text, as its reader sees the prose.

It does not know where a page comes from.  Tables, pictures, notes and categories are left out, headings are lines, and
of templates only those speak that dress the words of a sentence.
"""

import html
import re
from collections.abc import Collection, Iterable

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

HIDDEN = frozenset({"file", "image", "category"})
"""Namespaces, in lower case, whose links are pictures and categories, in any wiki beside its own names for them."""

UNSEEN = re.compile(r"<!--.*?-->|<ref\b[^<>]*/>|<ref\b[^<>]*>.*?</ref\s*>|__[A-Z]+__", re.DOTALL | re.IGNORECASE)
"""Comments and notes go before all else, as they do in MediaWiki's own preprocessor, whatever they hold."""
STYLE = re.compile("'{2,}")
"""Italic and bold; people leave them open, and a parser that pairs them loses the links and tables around them."""

BRACKETS = (("{{", "}}"), ("[[", "]]"), ("<", ">"))
UNCLOSED = 1000
"""The parser takes time by the square of their number: https://github.com/earwig/mwparserfromhell/issues/364."""

NO_PROSE = frozenset(
    {
        *("gallery", "graph", "hiero", "imagemap", "includeonly", "inputbox", "ref", "references", "score", "script"),
        *("section", "source", "style", "syntaxhighlight", "table", "templatedata", "timeline"),
    }
)
"""Tags whose content is not read as text; `table` is also what `{|` becomes."""
MEASURES = ("convert", "cvt")
SPOKEN = {
    **dict.fromkeys(MEASURES, slice(None)),
    **dict.fromkeys(("angbr", "big", "blockquote", "nihongo", "nobr", "nowrap", "quote", "small", "smaller"), slice(1)),
    "lang": slice(1, 2),
    "transl": slice(-1, None),
    "transliteration": slice(-1, None),
}
"""Templates whose words belong to the sentence, and which of their numbered parameters those words are."""

NUMBER = re.compile(r"[-+−\d.,/⁄]+|to|and|by|or|x|×|–")
"""What stands before the unit in `{{convert|5|to|10|km|mi}}`, which reads "5 to 10 km"."""
LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z-]+)?|simple")
GAPS = (
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r"(?<=\()[\s,;:]+|[\s,;:]+(?=\))"), ""),
    (re.compile(r" \(\)| (?=[,;.]\s)|^[ ,;]+", re.MULTILINE), ""),
)
"""What a template that is left out leaves behind in its sentence."""
TABLE = ("{|", "|", "! ")
"""How lines begin in a table that its writer left open."""


def plain(text: str, hidden: Collection[str] = HIDDEN) -> str | None:
    """The prose of a page; None where more than `UNCLOSED` brackets of a kind stay open.

    Headings of sections without prose are left out with them.
    """
    if any(text.count(opening) - text.count(closing) > UNCLOSED for opening, closing in BRACKETS):
        return None
    sections: list[tuple[int, str, list[str]]] = [(0, "", [])]
    for node in mwparserfromhell.parse(UNSEEN.sub("", text), skip_style_tags=True).nodes:
        if isinstance(node, Heading):
            sections.append((node.level, _shown(node.title, hidden), []))
        else:
            sections[-1][2].append(_node(node, hidden))
    return "\n\n".join(_with_prose((level, title, _tidy("".join(parts))) for level, title, parts in sections))


def _with_prose(sections: Iterable[tuple[int, str, str]]) -> list[str]:
    """Titles and texts of the sections that have a text, or a section with one below them."""
    kept: list[str] = []
    following = 0
    for level, title, text in reversed(list(sections)):
        if text or following > level > 0:
            kept += [part for part in (text, _tidy(title)) if part]
            following = level
    return kept[::-1]


def _tidy(text: str) -> str:
    text = STYLE.sub("", text)
    for gap, filling in GAPS:
        text = gap.sub(filling, text)
    lines = [line.strip() for line in text.split("\n")]
    worded = [line if any(map(str.isalnum, line)) and not line.startswith(TABLE) else "" for line in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(worded)).strip("\n")


def _shown(code: Wikicode, hidden: Collection[str]) -> str:
    return "".join(_node(node, hidden) for node in code.nodes)


def _node(node: Node, hidden: Collection[str]) -> str:
    match node:
        case Text():
            return node.value
        case HTMLEntity():
            return html.unescape(str(node))
        case Wikilink():
            return _link(node, hidden)
        case ExternalLink():
            shown = node.title if node.brackets else node.url
            return _shown(shown, hidden) if shown else ""
        case Tag():
            return _tag(node, hidden)
        case Template():
            return _template(node, hidden)
    return ""


def _link(link: Wikilink, hidden: Collection[str]) -> str:
    """A link's text; none for pictures, categories, and the same page in other languages."""
    title = str(link.title).strip()
    space, colon, _ = title.partition(":")
    if colon and (space.strip().lower() in hidden or (link.text is None and LANGUAGE.fullmatch(space))):
        return ""
    return _shown(link.text or link.title, hidden).removeprefix(":")


def _tag(tag: Tag, hidden: Collection[str]) -> str:
    name = str(tag.tag).strip().lower()
    if name == "br":
        return "\n"
    if name in NO_PROSE or tag.contents is None:
        return ""
    shown = _shown(tag.contents, hidden)
    return f"${shown}$" if name == "math" else shown


def _template(template: Template, hidden: Collection[str]) -> str:
    name = str(template.name).strip().lower()
    spoken = slice(1) if name.startswith("lang-") else SPOKEN.get(name)
    if spoken is None:
        return ""
    numbered = [param.value for param in template.params if str(param.name).strip().isdecimal()]
    words = [_shown(value, hidden).strip() for value in numbered]
    if name in MEASURES:
        spoken = slice(next((at for at, word in enumerate(words, 1) if not NUMBER.fullmatch(word)), 1))
    return " ".join(words[spoken])
