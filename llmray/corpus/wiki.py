"""MediaWiki's dumps (https://www.mediawiki.org/wiki/Help:Export) → rows: the articles, as a stream.

It does not know which articles are wanted.  Redirects, talk, templates and the like are passed over.
"""

from collections.abc import Iterator
from typing import IO
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from llmray.corpus.damage import CUT, ERRORS, cut
from llmray.corpus.files import opened
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row
from llmray.corpus.wikitext import HIDDEN, UNCLOSED, plain

HIDDEN_KEYS = ("6", "14")
"""Numbers of the namespaces of files and categories; what they are called is the wiki's language's."""


def articles(path: str) -> Iterator[Row | Bad]:
    """A row an article: `text`, its latest revision without markup, `title` and `id`.

    A dump that is cut short, is no XML, or declares entities (which the format never does; they could grow without
    bound) gives what came before, then a `Bad`.
    """
    after = "its beginning"
    with opened(path) as file:
        try:
            for number, columns in _articles(file):
                after = f"page {number}"
                if columns and columns["text"] is None:
                    yield Bad(f"{path}, {after}", "wrong markup", f"opens over {UNCLOSED} brackets more than it closes")
                elif columns:
                    yield f"{path}, {after}", columns
        except (ParseError, DefusedXmlException) as error:
            yield Bad(f"{path}, after {after}", CUT, f"damaged or cut short: not XML of a dump: {error}")
        except ERRORS as error:
            yield cut(path, after, error)


def _articles(file: IO[bytes]) -> Iterator[tuple[str, dict[str, str | None] | None]]:
    """Each page's id, and its columns where it is an article.  What was read is let go at once."""
    hidden = set(HIDDEN)
    text = ""
    elements = iterparse(file, ("start", "end"))
    _, root = next(elements)
    for event, element in elements:
        name = element.tag.rpartition("}")[2]
        if event == "start":
            continue
        if name == "namespace" and element.get("key") in HIDDEN_KEYS:
            hidden.add((element.text or "").lower())
        elif name == "revision":
            text = _child(element, "text")
            element.clear()
        elif name == "page":
            number = _child(element, "id")
            article = _child(element, "ns") in ("", "0") and element.find("{*}redirect") is None
            columns = {"title": _child(element, "title"), "id": number}
            yield number, {"text": plain(text, hidden), **columns} if article else None
            root.clear()


def _child(element: Element, name: str) -> str:
    return element.findtext("{*}" + name) or ""
