"""Texts take one form, and every verdict carries its reason."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmray.corpus.clean import Judge, Verdict, normalise
from llmray.corpus.language import identify
from llmray.job.data import Quality

ENGLISH = "The house stands at the end of the road, and nobody has lived in it for years."
GERMAN = "Das Haus steht am Ende der Straße, und seit Jahren hat niemand darin gewohnt."


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("\ufeffa\r\nb\rc\u2028d\fe", "a\nb\nc\nd\ne"),
        ("\n\na  \n\n  b\t\n", "a\n\n  b"),
        ("a\u00a0b\u2009c\u202fd", "a b c d"),
        ("Stra\u00adße e\u0301", "Straße é"),
        ("a\x00b\x1b[31mc\x1b[0m", "abc"),
        ("grÃ¶ÃŸer", "größer"),
        ("voilÃ\xa0 le travail", "voilà le travail"),
        ("itâ€™s so", "it’s so"),
        ("ok\nä¸­å›½", "ok\n中国"),
        ("Ð¼Ð¸Ñ€", "мир"),
        (" \n\t\n", ""),
    ],
)
def test_one_form(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "if a &lt; b:\n    print('x')  # 1\n\n\ny = \"…\"",
        "中文，“引号”！　全角ＡＢＣ",
        "«Où ça ?» — l’été, ﬁn, Größe, ÂÃ, Ã, São",
        "می‌خواهم",
        "👩‍👩‍👧 ok",
        "אב ‏ג",
    ],
)
def test_code_and_every_script_stay_as_they_are(text):
    assert normalise(text) == text


LETTERS = st.text(
    st.sampled_from("aé è€™â‚¬Ã©Âф中ﬁ，\u00a0\u00ad\u2028\r\n\t\x1b[m\x00\ufeff\ufffde\u0301\u3000"), max_size=12
)
MISREAD = st.sampled_from(["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "macroman"])


@settings(max_examples=400, deadline=None)
@given(st.text() | LETTERS, st.none() | MISREAD)
def test_doing_it_again_changes_nothing(text, encoding):
    text = text if encoding is None else text.encode().decode(encoding, "ignore")
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("judge", "text", "verdict"),
    [
        (Judge(), " \r\n", Verdict("", "empty")),
        (Judge(), " anything\r\n", Verdict(" anything", None)),
        (Judge(("en", "fr")), ENGLISH, Verdict(ENGLISH, None, "en")),
        (Judge(("en", "fr")), GERMAN, Verdict(GERMAN, "language: de", "de")),
        (Judge(("en",)), "12 + 30", Verdict("12 + 30", "language: unsure", identify("12 + 30")[0])),
        (Judge(("en",), min_score=0), "12 + 30", Verdict("12 + 30", None, identify("12 + 30")[0])),
        (Judge(quality=Quality()), ENGLISH, Verdict(ENGLISH, "c4: too few sentences", "en")),
        (Judge(("en",), quality=Quality()), GERMAN, Verdict(GERMAN, "language: de", "de")),
    ],
)
def test_the_first_reason_counts(judge, text, verdict):
    assert judge.judge(text) == verdict


def test_what_is_kept_is_normalised_and_edited():
    story = [f"On day {day} the old captain walked to the harbour and looked for ship number {day}." for day in "123"]
    text = "MENU\r\n" + "\r\n".join([*story, "He did not say what he thought of that, and we have never asked him.[3]"])
    verdict = Judge(("en",), quality=Quality(repetition=None)).judge(text)
    assert verdict.reason is None
    assert verdict.text == "\n".join([*story, "He did not say what he thought of that, and we have never asked him."])


def test_a_judge_travels():
    judge = pickle.loads(pickle.dumps(Judge(("de",), quality=Quality())))
    assert judge.judge(ENGLISH).reason == "language: en"
