"""The tab that asks a question about a text.  It does not know how the answer is found."""

from collections.abc import Iterator
from functools import partial

import gradio as gr

from ui import tab, view

BLANK = "The answer appears here, marked in its text."


def build(place: tab.Place) -> tab.Tab:
    def answer(question: str, context: str, key: str) -> Iterator[tab.Shown]:
        if not question.strip() or not context.strip():
            yield tab.asking_for(BLANK, "Write a question and the text that holds its answer.")
            return
        client = place.client.keyed(key)
        ask = partial(client.ask, question, context, top_k=3)
        yield from tab.answering(client, BLANK, ask, lambda reply: view.answer(reply, context))

    with gr.Tab("Ask"):
        with gr.Row(equal_height=False):
            with tab.column():
                question = tab.text_field("Question", "ask-question", placeholder="What colour is the circle?")
                context = tab.text_field("Text that holds the answer", "ask-context", lines=5)
                button = tab.button("Ask", "ask-button")
                note = tab.html("", "ask-note")
            panel = tab.panel(BLANK, "ask-answer")
        examples = tab.examples([question for question, _ in place.samples.questions])
    chosen = tab.on(examples.click, lambda index: place.samples.questions[index], examples, [question, context])
    events = (button.click, question.submit, chosen.then)
    fields, shown = [question, context, place.key], [panel, note, *place.codes.outputs]
    return tab.Tab(note, [tab.on(event, answer, fields, shown) for event in events])
