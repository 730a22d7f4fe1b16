"""Answers and troubles as HTML: nothing that a model or a user wrote becomes markup."""

import pytest

from ui import trouble, view
from ui.calls import Call
from ui.client import About, Model, Reply, Span

EVIL = '<script>alert("1")</script>'
MODEL = Model("shapes-qa", "3")
CALL = Call("/qa", b"")


def spans(*found: Span) -> Reply[list[Span]]:
    return Reply(list(found), MODEL, 0.0124, CALL)


def test_the_answer_is_marked_at_its_place_and_not_at_its_first_word():
    html = view.answer(spans(Span(answer="red", score=0.973, start=12, end=15)), "red or else red?")
    assert '<p class="lr-context">red or else <mark>red</mark>?</p>' in html
    assert "97% confident" in html
    assert "Answered by shapes-qa <span>v3</span> in 12 ms" in html


def test_offsets_count_characters_beyond_the_basic_plane_once():
    html = view.answer(spans(Span(answer="rot", score=1, start=2, end=5)), "🙂 rot")
    assert "🙂 <mark>rot</mark>" in html


def test_offsets_that_do_not_fit_mark_nothing():
    html = view.answer(spans(Span(answer="red", score=0.5, start=90, end=93)), "a red circle")
    assert "<mark>" not in html
    assert ">a red circle<" in html


def test_runners_up_are_other_answers():
    best, same, other, none = (Span(answer=a, score=0.4, start=0, end=len(a)) for a in ("red", "red", "blue", ""))
    html = view.answer(spans(best, same, other, none), "red")
    assert html.count("<li>") == 1
    assert "<li>blue <span>40%</span></li>" in html


@pytest.mark.parametrize("reply", [spans(), spans(Span(answer="", score=0.9, start=0, end=0))])
def test_no_answer_is_said_in_words(reply):
    assert "gives no answer" in view.answer(reply, "a text")


@pytest.mark.parametrize(("score", "shown"), [(7.0, "100%"), (-0.2, "0%"), (0.005, "0%"), (0.996, "100%")])
def test_confidence_stays_within_bounds(score, shown):
    assert f"{shown} confident" in view.answer(spans(Span(answer="a", score=score, start=0, end=1)), "a")


def test_whatever_was_written_stays_text():
    evil = Reply(EVIL, Model(EVIL, EVIL), 2.5, CALL)
    pieces = [
        view.said(evil),
        view.captioned(evil, EVIL, right=False),
        view.written(EVIL, evil, running=True),
        view.answer(spans(Span(answer=EVIL, score=1, start=0, end=len(EVIL))), EVIL + EVIL),
        view.trouble(trouble.failed_midway(EVIL)),
        view.header({"Ask": Model(EVIL, EVIL)}),
        view.empty(EVIL),
        view.hint(EVIL),
        view.connection(EVIL),
        view.picture(b"", EVIL),
    ]
    assert not [piece for piece in pieces if "<script" in piece]


def test_the_header_names_models_and_what_is_wrong():
    standings = {"Ask": MODEL, "Write": Model(), "Caption": trouble.unreachable("http://x")}
    html = view.header(standings)
    assert "shapes-qa <span>v3</span>" in html
    assert "<dd>ready</dd>" in html
    assert "<dd>not reachable</dd>" in html


def test_a_version_that_is_a_name_stands_as_it_is():
    assert "champion" in view.header({"Ask": Model("m", "champion")})
    assert "vchampion" not in view.header({"Ask": Model("m", "champion")})


def test_commands_in_a_note_are_set_apart():
    html = view.trouble(trouble.unreachable("http://x"))
    assert "<code>llmray demo</code>" in html


def test_a_stopped_panel_neither_blinks_nor_waits():
    running = view.written("A", Reply(" word", MODEL, 1.0, CALL), running=True)
    assert "lr-caret" in running
    assert "lr-caret" not in view.settled(running, "nothing yet")
    assert view.settled(view.working(), "nothing yet") == view.empty("nothing yet")


def test_models_are_listed_with_what_they_scored():
    about = About(
        task="qa",
        model=EVIL,
        version="3",
        engine="onnx int8",
        metrics={"exact_match": 95.25},
        created="2026-01-02T03:04:05",
    )
    html = view.models({"/qa": about, "/chat": trouble.unreachable("http://h")})
    assert "<td>onnx int8</td>" in html
    assert "exact_match 95.25" in html
    assert "2026-01-02<" in html
    assert "Nothing answers at http://h." in html
    assert "<script>" not in html
