"""The page in a real Chromium: each tab is used, endpoints fail, a phone looks at it."""

import re

import pytest
from playwright.sync_api import Page, expect

from ui.app import launch

CONTEXT = "There is a large red circle above a small yellow square."
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::Warning:gradio")]


@pytest.fixture(scope="module")
def url(stand_in):
    url, close = launch(stand_in.url)
    yield url
    close()


@pytest.fixture
def visit(browser, url):
    """Opens the page; afterwards, nothing was asked of any other machine and no script failed."""
    contexts, asked, failed = [], [], []

    def opened(**options) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(url)
        expect(page.locator(".lr-standing")).to_have_count(4)
        return page

    yield opened
    for context in contexts:
        expect(context.pages[0].locator(".toast-wrap .error")).to_have_count(0)
        context.close()
    assert not failed
    assert not [one for one in asked if not one.startswith((url, "data:", "blob:"))]


def go(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab).click()
    expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
    # A frame after a tab first opens, Gradio sets its fields to what they were made with, whatever was typed meanwhile.
    page.evaluate("() => new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))")


def test_each_tab_answers(visit, endpoints, tmp_path):
    page = visit(viewport={"width": 1280, "height": 860})
    expect(page.locator("#header")).to_contain_text("shapes-qa v3")

    page.get_by_label("Question").fill("What colour is the circle?")
    page.get_by_label("Text that holds the answer").fill(CONTEXT)
    page.locator("#ask-button").click()
    expect(page.locator("#ask-answer mark")).to_have_text("red")
    expect(page.locator("#ask-answer")).to_contain_text("97% confident")
    expect(page.locator("#ask-answer")).to_contain_text(re.compile(r"Answered by shapes-qa v3 in \d+ ms"))

    go(page, "Translate")
    page.locator("#translate-examples button").first.click()
    expect(page.locator("#translate-answer")).to_contain_text("Es gibt einen großen roten Kreis")
    assert endpoints.sent[-1]["inputs"] == page.get_by_label("English").input_value()

    go(page, "Caption")
    page.locator("#caption-draw").click()
    expect(page.locator("#caption-answer")).to_contain_text(re.compile("true caption", re.IGNORECASE))
    own = tmp_path / "own.png"
    own.write_bytes(endpoints.sent[-1]["bytes"])
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#caption-answer")).to_contain_text("appears here")
    page.locator("#caption-picture input[type=file]").set_input_files(own)
    expect(page.locator("#caption-picture img")).to_be_visible()
    page.locator("#caption-button").click()
    expect(page.locator("#caption-answer .lr-said")).to_have_text("a large red circle above a small yellow square")
    assert endpoints.sent[-1]["bytes"] == own.read_bytes()
    expect(page.locator("#caption-answer")).not_to_contain_text("true caption")

    go(page, "Write")
    page.get_by_label("Beginning").fill("There is a")
    page.locator("#write-button").click()
    expect(page.locator("#write-answer .lr-written")).to_have_text("There is a red circle above a small blue square.")
    expect(page.locator("#write-answer")).to_contain_text("Answered by shapes-generate v3")
    assert endpoints.sent[-1]["parameters"]["max_new_tokens"] == 64


def test_what_was_asked_is_shown_as_a_command_and_as_a_program(visit, endpoints):
    page = visit()
    go(page, "API")
    expect(page.locator("#api-hint")).to_contain_text("appears here")
    go(page, "Translate")
    page.locator("#translate-examples button").first.click()
    expect(page.locator("#translate-answer .lr-said")).to_be_visible()
    asked = page.get_by_label("English").input_value()
    go(page, "API")
    expect(page.locator("#api-curl")).to_contain_text(f"curl {endpoints.url}/translate")
    expect(page.locator("#api-python")).to_contain_text(f"client.translation({asked!r})")


def test_a_translator_is_chosen_among_several_and_turned_round(visit, endpoints):
    endpoints.translators = ["en-de", "de-en", "en-fr"]
    page = visit()
    go(page, "Translate")
    page.get_by_label("Text", exact=True).fill("There is a circle.")
    page.locator("#translate-button").click()
    said = page.locator("#translate-answer .lr-said")
    expect(said).to_have_attribute("lang", "de")
    german = said.inner_text()
    page.locator("#translate-swap").click()
    expect(page.get_by_label("Text", exact=True)).to_have_value(german)
    expect(page.get_by_role("combobox", name="Model")).to_have_value("de → en")
    page.locator("#translate-button").click()
    expect(said).to_have_attribute("lang", "en")
    assert (endpoints.asked, endpoints.sent[-1]["inputs"]) == (["/translate/en-de", "/translate/de-en"], german)
    go(page, "API")
    expect(page.locator("#api-python")).to_contain_text(f"{endpoints.url}/translate/de-en")
    go(page, "Translate")
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="en → fr").click()
    expect(page.locator("#translate-swap")).to_be_disabled()  # no model goes back


def test_models_are_listed_with_their_scores(visit, endpoints):
    endpoints.trouble, endpoints.translators = {"/caption": "absent"}, ["en-de", "de-en"]
    page = visit()
    go(page, "Models")
    served = ["/generate", "/qa", "/translate", "/translate/de-en"]
    expect(page.locator("#models-table tbody td:first-child")).to_have_text(served)
    expect(page.locator("#models-table")).to_contain_text("shapes-qa v3")
    expect(page.locator("#models-table")).to_contain_text("exact_match 95.25")


def test_everything_is_reached_by_keyboard(visit, endpoints):
    """From the first tab to an answer with the keys alone; what has the focus is seen to have it."""
    page = visit(viewport={"width": 1280, "height": 860})
    page.get_by_role("tab", name="Ask").focus()
    page.keyboard.press("Tab")
    for label, text in (("Question", "What is red?"), ("Text that holds the answer", CONTEXT)):
        until_focused(page, page.get_by_label(label))
        page.keyboard.type(text)
    until_focused(page, page.locator("#ask-button"))
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    expect(page.locator("#ask-answer mark")).to_have_text("red")
    page.get_by_role("tab", name="Ask").focus()
    until_focused(page, page.get_by_role("tab", name="Translate"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Translate")).to_have_attribute("aria-selected", "true")


def until_focused(page: Page, wanted) -> None:
    for _ in range(20):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{wanted} is not reached by Tab")


def test_writing_stops_when_told(visit, endpoints):
    endpoints.tokens = [" word"] * 10_000
    page = visit()
    go(page, "Write")
    page.get_by_label("Beginning").fill("A")
    page.locator("#write-button").click()
    expect(page.locator("#write-answer")).to_contain_text("A word word")
    expect(page.locator("#write-button")).to_be_disabled()
    page.locator("#write-stop").click()
    expect(page.locator("#write-button")).to_be_enabled()
    expect(page.locator("#write-stop")).to_be_disabled()
    expect(page.locator("#write-answer .lr-caret")).to_have_count(0)
    expect(page.locator("#write-answer")).to_contain_text("A word word")
    endpoints.wait_until_quiet()
    assert endpoints.streamed < 5000


def test_trouble_is_told_beside_the_button_and_other_tabs_work_on(visit, endpoints, tmp_path):
    endpoints.trouble = {"/translate": "absent", "/generate": "cut", "/qa": "503"}
    page = visit()
    expect(page.locator("#header")).to_contain_text("not deployed")

    page.locator("#ask-button").click()
    expect(page.locator("#ask-note")).to_contain_text("Write a question")
    page.locator("#ask-examples button").first.click()
    expect(page.locator("#ask-note")).to_contain_text("qa says 503. Try again in 7 s.")
    del endpoints.trouble["/qa"]
    page.locator("#ask-button").click()
    expect(page.locator("#ask-answer mark")).to_be_visible()
    expect(page.locator("#ask-note")).to_be_empty()

    go(page, "Translate")
    expect(page.locator("#translate-note")).to_contain_text("Nothing is deployed at")

    go(page, "Caption")
    not_a_picture = tmp_path / "notes.png"
    not_a_picture.write_text("no picture at all")
    page.locator("#caption-picture input[type=file]").set_input_files(not_a_picture)
    expect(page.locator("#caption-picture img")).to_be_attached()
    page.locator("#caption-button").click()
    expect(page.locator("#caption-note")).to_contain_text("not a picture")

    go(page, "Write")
    page.locator("#write-examples button").first.click()
    expect(page.locator("#write-note")).to_contain_text("broke off")
    expect(page.locator("#write-answer")).to_contain_text("red circle")
    expect(page.locator("#write-button")).to_be_enabled()


def test_a_key_is_asked_for_and_sent(visit, endpoints):
    endpoints.trouble = {"/qa": "401"}
    page = visit()
    page.locator("#ask-examples button").first.click()
    expect(page.locator("#ask-note")).to_contain_text("asks for an API key")
    page.get_by_role("button", name="Connection").click()
    page.get_by_label("API key").fill("llm-secret")
    del endpoints.trouble["/qa"]
    page.locator("#ask-button").click()
    expect(page.locator("#ask-answer mark")).to_be_visible()
    assert endpoints.headers[-1]["authorization"] == "Bearer llm-secret"


def test_a_page_before_its_endpoints_says_how_to_start_them(browser, free_port):
    url, close = launch(f"http://127.0.0.1:{free_port}")
    page = browser.new_page()
    try:
        page.goto(url)
        expect(page.locator("#header")).to_contain_text("not reachable")
        expect(page.locator("#ask-note")).to_contain_text(f"Nothing answers at http://127.0.0.1:{free_port}.")
        page.locator("#ask-examples button").first.click()
        expect(page.locator("#ask-answer")).to_contain_text("appears here")
        expect(page.locator("#ask-note")).to_contain_text("llmray demo")
        expect(page.locator(".toast-wrap .error")).to_have_count(0)
    finally:
        page.close()
        close()


def test_an_endpoint_that_takes_too_long_is_called_late(browser, endpoints):
    endpoints.trouble = {"/qa": "slow"}
    url, close = launch(endpoints.url, timeout_s=1.0)
    page = browser.new_page()
    try:
        page.goto(url)
        page.locator("#ask-examples button").first.click()
        expect(page.locator("#ask-note")).to_contain_text("No answer from")
    finally:
        page.close()
        close()


def test_a_phone_in_the_dark_scrolls_down_only(visit):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    for tab in ("Ask", "Translate", "Caption", "Write"):
        go(page, tab)
        page.locator(f"#{tab.lower()}-examples button").first.click()
        expect(page.locator(f"#{tab.lower()}-answer .lr-by"), tab).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in re.findall(r"\d+", background)[:3]) < 120
