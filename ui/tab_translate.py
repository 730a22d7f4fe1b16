"""The tab that translates: English to German, or by the model that is chosen where several are served.

It does not know how the text is translated.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from ui import tab, view
from ui.client import Client, Reply
from ui.trouble import EndpointError

BLANK = "The translation appears here."
PAIR = re.compile(r"([a-z]{2,3})-([a-z]{2,3})")
"""A model's name that says its languages, `en-de`."""


def build(place: tab.Place) -> tab.Tab:
    with gr.Tab("Translate") as opened:
        with gr.Row(equal_height=False):
            with tab.column():
                with gr.Row(visible=False, equal_height=True) as choice:
                    model = gr.Dropdown([], label="Model", elem_id="translate-model", scale=2)
                    swap = tab.button("Swap languages", "translate-swap", primary=False)
                text = tab.text_field("English", "translate-text", lines=5)
                button = tab.button("Translate to German", "translate-button")
                note = tab.html("", "translate-note")
            panel = tab.panel(BLANK, "translate-answer")
        examples = tab.examples(place.samples.texts, "translate-examples")
        served, said = gr.State([]), gr.State("")
    tab.on(
        opened.select,
        lambda key, name: _offered(place.client.keyed(key), name),
        [place.key, model],
        [choice, model, text, button, served],
    )
    tab.on(model.change, lambda name, names: gr.update(interactive=_reverse(name) in names), [model, served], swap)
    tab.on(swap.click, _swapped, [model, text, said], [model, text, panel, said])
    chosen = tab.on(examples.click, lambda index: place.samples.texts[index], examples, text)
    events = (button.click, chosen.then)
    shown = [panel, note, *place.codes.outputs, said]
    answer = partial(_answer, place.client)
    return tab.Tab(note, [tab.on(event, answer, [text, model, place.key], shown) for event in events])


def _answer(anyone: Client, text: str, name: str | None, key: str) -> Iterator[tuple[Any, ...]]:
    """What is shown, and the translation alone."""
    said, client = "", anyone.keyed(key)

    def show(reply: Reply[str]) -> str:
        nonlocal said
        said = reply.value
        return view.said(reply, _languages(name)[1] if name else "de")

    if not text.strip():
        yield *tab.asking_for(BLANK, "Write a text to translate."), said
        return
    for shown in tab.answering(client, BLANK, lambda: client.translate(text, name), show):
        yield *shown, said


def _offered(client: Client, chosen: str | None) -> tuple[Any, ...]:
    """A choice of models where there is one; the fields say a language where there is none."""
    try:
        names = client.names("/translate")
    except EndpointError:
        names = []
    if len(names) < 2:
        return gr.update(visible=False), gr.update(value=None), gr.skip(), gr.skip(), []
    choices = [(name.replace("-", " → "), name) for name in names]
    model = gr.update(choices=choices, value=chosen if chosen in names else names[0])
    return gr.update(visible=True), model, gr.update(label="Text"), gr.update(value="Translate"), names


def _swapped(name: str, text: str, said: str) -> tuple[Any, ...]:
    """The other way round: what was the translation is now to be translated."""
    return _reverse(name), said or text, view.empty(BLANK), ""


def _reverse(name: str | None) -> str:
    source, target = _languages(name)
    return f"{target}-{source}"


def _languages(name: str | None) -> tuple[str, str]:
    """From which to which; empty where the name does not say."""
    found = PAIR.fullmatch(name or "")
    return (found[1], found[2]) if found else ("", "")
