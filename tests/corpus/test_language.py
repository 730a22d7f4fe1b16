"""Languages are told without a network; words are found in scripts with and without spaces."""

import gzip
import json
import socket

import pytest

from llmray.corpus import language
from llmray.corpus.language import SAMPLE_CHARS, identify, is_unspaced, words_of


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "The house stands at the end of the road, and nobody has lived in it for years."),
        ("de", "Das Haus steht am Ende der Straße, und seit Jahren hat niemand darin gewohnt."),
        ("fr", "La maison se trouve au bout de la rue et personne n'y habite depuis des années."),
        ("zh", "房子在路的尽头，已经很多年没有人住了。"),
        ("ja", "その家は道の端にあり、何年も誰も住んでいません。"),
        ("ru", "Дом стоит в конце дороги, и уже много лет в нём никто не живёт."),
    ],
)
def test_languages(code, text):
    found, score = identify(text)
    assert found == code
    assert 0.65 < score <= 1


def test_a_text_without_letters_is_unsure():
    for text in ("", "12 + 30 = 42", "\n\n"):
        assert identify(text)[1] < 0.65


def test_the_middle_of_a_long_text_decides():
    menu = "Home About Contact Login Register " * 40
    assert len(menu) > SAMPLE_CHARS
    assert identify(menu + "Das Haus steht am Ende der Straße. " * 100 + menu)[0] == "de"


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    language._detector.cache_clear()
    assert identify("The house stands at the end of the road.")[0] == "en"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, it\nsat.", ["The", "cat,", "it", "sat."]),
        ("我们去。", ["我", "们", "去。"]),
        ("「東京」へ行くバス", ["「", "東", "京」", "へ", "行", "く", "バス"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("iPhone手机 5月", ["iPhone", "手", "机", "5", "月"]),
        (" \n", []),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


def test_a_text_is_unspaced_when_most_of_its_words_are():
    for text, unspaced in (("one two 三", False), ("one 二", False), ("one 二三", True)):
        assert is_unspaced(text, words_of(text)) is unspaced


@pytest.mark.parametrize("code", ["en", "de", "es", "zh"])
def test_every_paragraph_of_real_text(shared_data, code):
    tree = json.loads(gzip.decompress((shared_data / "squad" / "xquad" / f"xquad.{code}.json.gz").read_bytes()))
    texts = [paragraph["context"] for article in tree["data"] for paragraph in article["paragraphs"]]
    assert {identify(text)[0] for text in texts} == {code}
    assert min(identify(text)[1] for text in texts) > 0.65
