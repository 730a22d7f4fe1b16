"""The tab that translates English to German.  It does not know how the text is translated."""

from collections.abc import Iterator
from functools import partial

import gradio as gr

from ui import tab, view

BLANK = "The German translation appears here."


def build(place: tab.Place) -> tab.Tab:
    def answer(text: str, key: str) -> Iterator[tab.Shown]:
        if not text.strip():
            yield tab.asking_for(BLANK, "Write an English text to translate.")
            return
        client = place.client.keyed(key)
        yield from tab.answering(client, BLANK, partial(client.translate, text), partial(view.said, lang="de"))

    with gr.Tab("Translate"):
        with gr.Row(equal_height=False):
            with tab.column():
                text = tab.text_field("English", "translate-text", lines=5)
                button = tab.button("Translate to German", "translate-button")
                note = tab.html("", "translate-note")
            panel = tab.panel(BLANK, "translate-answer")
        examples = tab.examples(place.samples.texts)
    chosen = tab.on(examples.click, lambda index: place.samples.texts[index], examples, text)
    events = (button.click, chosen.then)
    shown = [panel, note, *place.codes.outputs]
    return tab.Tab(note, [tab.on(event, answer, [text, place.key], shown) for event in events])
