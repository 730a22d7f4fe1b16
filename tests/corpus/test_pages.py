"""Pages become text in the encoding that they are in, whatever they say; their frame is left out."""

import pytest

from llmray.corpus.pages import decoded, main_text

RUSSIAN = "Привет, мир. Как дела? Это длинный текст на русском языке."


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("größer".encode(), None, "größer"),
        ("größer".encode(), "iso-8859-1", "größer"),
        ("größer".encode("latin-1"), "iso-8859-1", "größer"),
        ("größer".encode("utf-8-sig"), "utf-8", "größer"),
        ("größer".encode("utf-16"), None, "größer"),
        (RUSSIAN.encode("koi8-r"), "koi8-r", RUSSIAN),
        (RUSSIAN.encode("cp1251"), None, RUSSIAN),
        (RUSSIAN.encode("cp1251"), "utf-8", RUSSIAN),
        (RUSSIAN.encode("cp1251"), "nonsense", RUSSIAN),
        (RUSSIAN.encode() + b"\xff", "utf-8", RUSSIAN + "�"),
        ("日本語のテキスト".encode("iso-2022-jp"), None, "日本語のテキスト"),
        (b"", None, ""),
    ],
)
def test_encodings(body, charset, text):
    assert decoded(body, charset) == text


def test_the_page_says_its_own_encoding():
    assert decoded(b'<meta charset="windows-1250"><p>\x9elu\x9dou\xe8k\xfd', None).endswith("žluťoučký")


def test_menus_and_scripts_are_no_text():
    page = """<html><head><title>T</title><script>var a = 1;</script></head><body>
        <nav><ul><li><a href="/">Home</a></li><li><a href="/b">About</a></li></ul></nav>
        <main><h1>Head</h1><p>First   words,
        <b>bold</b> ones.</p></main>
        <footer>All rights reserved</footer></body></html>"""
    assert main_text(page) == "Head\n\nFirst words, bold ones."


def test_pages_without_text():
    assert [main_text(page) for page in ("", "<html></html>", "<img src=a.png>")] == ["", "", ""]


def test_nesting_has_a_bound():
    assert main_text("<div>" * 300 + "x") == "x"
    assert main_text("<div>" * 600 + "x") is None
