"""The page in a real Chromium: each tab is used, endpoints fail, a phone looks at it.

`LLMRAY_SCREENSHOTS=docs/images` makes the pictures of the documentation.
"""

import io
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

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
    opened(page, tab)


def opened(page: Page, tab: str) -> None:
    expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
    # A frame after a tab first opens, Gradio sets its fields to what they were made with, whatever was typed meanwhile.
    page.evaluate("() => new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))")


def picture(page: Page, name: str) -> None:
    """For the documentation, where it is asked for."""
    if folder := os.environ.get("LLMRAY_SCREENSHOTS"):
        page.screenshot(path=Path(folder, name))


def test_each_tab_answers(visit, endpoints, tmp_path):
    page = visit(viewport={"width": 1280, "height": 660})
    expect(page.locator("#header")).to_contain_text("shapes-qa v3")

    page.get_by_label("Question").fill("What colour is the circle?")
    page.get_by_label("Text that holds the answer").fill(CONTEXT)
    page.locator("#ask-button").click()
    expect(page.locator("#ask-answer mark")).to_have_text("red")
    expect(page.locator("#ask-answer")).to_contain_text("97% confident")
    expect(page.locator("#ask-answer")).to_contain_text(re.compile(r"Answered by shapes-qa v3 in \d+ ms"))
    picture(page, "page.png")

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
    """From the page's top through every tab with the keys alone; what has the focus is seen to have it."""
    endpoints.tokens = [" word"] * 10_000
    page = visit(viewport={"width": 1280, "height": 860})
    enter(page, "Question", "What is red?")
    enter(page, "Text that holds the answer", CONTEXT)
    press(page, page.locator("#ask-button"), "Enter")
    expect(page.locator("#ask-answer mark")).to_have_text("red")

    turn_to(page, "Translate")
    enter(page, "English", "A circle.")
    press(page, page.locator("#translate-button"), "Space")
    expect(page.locator("#translate-answer .lr-said")).to_be_visible()

    turn_to(page, "Caption")
    press(page, page.locator("#caption-draw"), "Enter")
    expect(page.locator("#caption-answer .lr-said")).to_be_visible()

    turn_to(page, "Write")
    enter(page, "Beginning", "A")
    press(page, page.locator("#write-length input[type=range]"), "ArrowRight")
    press(page, page.locator("#write-button"), "Enter")
    expect(page.locator("#write-answer")).to_contain_text("A word word")
    press(page, page.locator("#write-stop"), "Space")
    expect(page.locator("#write-button")).to_be_enabled()
    assert endpoints.sent[-1]["parameters"]["max_new_tokens"] == 72

    turn_to(page, "Models")
    expect(page.locator("#models-table tbody tr")).to_have_count(4)
    turn_to(page, "API")
    expect(page.locator("#api-curl")).to_contain_text("/caption")


def turn_to(page: Page, tab: str) -> None:
    press(page, page.get_by_role("tab", name=tab), "Enter")
    opened(page, tab)


def enter(page: Page, label: str, text: str) -> None:
    until_focused(page, page.get_by_label(label))
    page.keyboard.type(text)


def press(page: Page, wanted: Locator, key: str) -> None:
    until_focused(page, wanted)
    drawn = wanted.evaluate("element => [getComputedStyle(element).outlineStyle, getComputedStyle(element).boxShadow]")
    assert drawn != ["none", "none"], wanted
    page.keyboard.press(key)


def until_focused(page: Page, wanted: Locator) -> None:
    """Behind the page's last field comes its first."""
    for _ in range(60):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{wanted} is not reached by Tab")


def test_the_sliders_say_how_the_next_word_is_drawn(visit, endpoints):
    page = visit()
    go(page, "Write")
    page.get_by_label("Beginning").fill("A")
    for slider, key in (("length", "ArrowLeft"), ("temperature", "ArrowRight"), ("top-p", "ArrowLeft")):
        page.locator(f"#write-{slider} input[type=range]").press(key)
    written(page)
    told = {"return_full_text": False, "max_new_tokens": 56}
    assert endpoints.sent[-1]["parameters"] == told | {"do_sample": True, "temperature": 0.8, "top_p": 0.95}
    page.locator("#write-temperature input[type=range]").press("Home")
    written(page)
    assert endpoints.sent[-1]["parameters"] == told | {"do_sample": False}


def written(page: Page) -> None:
    page.locator("#write-button").click()
    expect(page.locator("#write-answer .lr-by")).to_have_count(0)
    expect(page.locator("#write-answer .lr-by")).to_be_visible()


def test_a_picture_comes_from_the_camera_or_the_clipboard(visit, endpoints):
    page = visit(permissions=["camera", "clipboard-read", "clipboard-write"])
    go(page, "Caption")
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#caption-picture video')?.videoWidth")
    page.get_by_label("capture photo").click()
    captioned(page)
    assert sent_picture(endpoints).width > 64

    page.locator("#caption-draw").click()
    expect(page.locator("#caption-answer .lr-truth")).to_be_visible()
    page.evaluate(COPY_A_RED_PICTURE)
    page.get_by_label("Paste from clipboard").click()
    expect(page.locator("#caption-answer")).to_contain_text("appears here")
    captioned(page)
    assert (sent_picture(endpoints).size, sent_picture(endpoints).getpixel((0, 0))) == ((8, 8), (255, 0, 0))


COPY_A_RED_PICTURE = """async () => {
  const canvas = new OffscreenCanvas(8, 8), context = canvas.getContext("2d")
  context.fillStyle = "#f00"
  context.fillRect(0, 0, 8, 8)
  await navigator.clipboard.write([new ClipboardItem({"image/png": await canvas.convertToBlob()})])
}"""


def captioned(page: Page) -> None:
    expect(page.locator("#caption-picture .image-frame img")).to_be_visible()
    page.locator("#caption-button").click()
    expect(page.locator("#caption-answer .lr-said")).to_be_visible()


def sent_picture(endpoints) -> Image.Image:
    return Image.open(io.BytesIO(endpoints.sent[-1]["bytes"])).convert("RGB")


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


def style(page: Page, name: str) -> str:
    return page.evaluate("name => getComputedStyle(document.body).getPropertyValue(name)", name)


def test_a_phone_in_the_dark_scrolls_down_only(visit):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    for tab in ("Ask", "Translate", "Caption", "Write"):
        go(page, tab)
        page.locator(f"#{tab.lower()}-examples button").first.click()
        expect(page.locator(f"#{tab.lower()}-answer .lr-by"), tab).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        picture(page, f"phone-{tab.lower()}.png")
    for tab, shown in (("Models", "#models-table .lr-panel"), ("API", "#api-curl")):
        go(page, tab)
        expect(page.locator(shown)).to_be_visible()
        assert page.locator(shown).evaluate("element => element.scrollWidth <= element.clientWidth"), tab
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        picture(page, f"phone-{tab.lower()}.png")
    go(page, "Models")
    heights = page.locator("#models-table td").evaluate_all("cells => cells.map(cell => cell.offsetHeight)")
    assert 0 < max(heights) < 40, "a word is broken"
    assert style(page, "--color-accent") == style(page, "--primary-400")  # petrol is too dark there
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in re.findall(r"\d+", background)[:3]) < 120
