"""Markup becomes the prose that a reader sees."""

import pytest

from llmray.corpus.wikitext import plain


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Ann''' is ''here''.", "Ann is here."),
        ("'''Ann is ''here'.", "Ann is here'."),
        ("[[Bee]]s and [[Cat (animal)|cats]]", "Bees and cats"),
        ("[http://a.example the site] [http://b.example] http://c.example", "the site http://c.example"),
        ("a[[File:A.png|thumb|of ''b'', see [[c]]]]d", "ad"),
        ("a[[Bild:A.png]]b[[Category:Letters]]c[[:Category:Letters]]", "abcCategory:Letters"),
        ("a[[de:A]]b[[zh-min-nan:A]]c[[de:A|A]]", "abcA"),
        ('a<ref name="x">b {{c}}</ref>d<ref name=x />e<!-- f -->', "ade"),
        ("a<ref>one</ref>b<ref>[[two</ref>c", "abc"),
        ("{{Infobox\n|name=A\n|text={{b|c}}\n}}\na", "a"),
        ("a\n{| class=wikitable\n|-\n| b || c\n|}\nd", "a\n\nd"),
        ("a\n{| class=wikitable\n|-\n! b\n| c\nd", "a\n\nd"),
        ("* a\n* b\n# c\n: d", "a\nb\nc\nd"),
        ("a<br />b<div class=x>c</div><sup>2</sup>", "a\nbc2"),
        ("2&nbsp;&times;&#160;3 &lt; 7&#xD800;", "2 × 3 < 7�"),
        ("<math>E = mc^2</math>", "$E = mc^2$"),
        ("<nowiki>[[a]]</nowiki><gallery>A.png</gallery>__NOTOC__", "[[a]]"),
        ("A ({{IPA|x}}; [[Greek]]: {{lang|el|Α}}) b{{citation needed}}, c ({{d}}).", "A (Greek: Α) b, c."),
        ("{{convert|5|km|mi}} to {{convert|5|to|10|km|mi}}, {{lang-de|Weg}}", "5 km to 5 to 10 km, Weg"),
        ("call f() now", "call f() now"),
    ],
)
def test_markup(markup, text):
    assert plain(markup, {"file", "bild", "category"}) == text


def test_headings_are_lines_and_go_where_nothing_is_below_them():
    markup = "a\n== B ==\n=== C ''c'' ===\nd\n== E ==\n{{Reflist}}\n=== F ===\n* {{cite}}\n== G ==\ng\n== H =="
    assert plain(markup) == "a\n\nB\n\nC c\n\nd\n\nG\n\ng"


@pytest.mark.parametrize("opening", ["{{a|", "[[a|", "<ref name=a "])
def test_brackets_that_stay_open_have_a_bound(opening):
    assert plain(opening * 1001) is None
    assert plain(opening * 3) is not None
