"""A web page's bytes → its main text, without menus, notices and the like.

It does not know where the page was found, nor whether anyone wants its text.
"""

import re

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

DEPTH = 512
"""Browsers nest elements no deeper; finding the main text takes time by the square of the depth."""
TOO_DEEP = " > ".join("*" * DEPTH)
CERTAIN = ("utf-8", "utf-16-le", "utf-16-be", "iso2022_jp")
"""Encodings that bytes show beyond doubt; what a page says of itself is often its server's default."""
BLANK_LINES = re.compile(r"\n\s*\n")


def decoded(body: bytes, charset: str | None) -> str:
    """Text in the encoding that its bytes show, else in the one declared by the server or in the page, if it fits."""
    seen = detect_encoding(body) or "utf-8"
    told = map_encoding_to_html5(charset or "", False) or detect_encoding(body, from_html_meta=True) or seen
    for encoding in (seen, told) if seen in CERTAIN else (told, seen):
        try:
            return body.decode(encoding).lstrip("\ufeff")
        except (UnicodeDecodeError, LookupError):
            continue
    return body.decode(seen, "replace").lstrip("\ufeff")


def main_text(page: str) -> str | None:
    """The main text of HTML, by resiliparse's rules (https://resiliparse.chatnoir.eu); None where it nests too deep."""
    tree = HTMLTree.parse(page)
    if tree.body is None or tree.body.query_selector(TOO_DEEP):
        return None if tree.body else ""
    text = extract_plain_text(tree, main_content=True, list_bullets=False, alt_texts=False, comments=False)
    lines = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    return BLANK_LINES.sub("\n\n", lines).strip()
