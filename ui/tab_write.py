"""The tab that writes on from a beginning, word by word, until it is stopped.

It does not know how the next word is chosen.
"""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ui import tab, view
from ui.tab_api import UNTOLD, told
from ui.trouble import EndpointError

BLANK = "The text appears here, word by word."
Update = dict[str, Any]
IDLE: tuple[Update, Update] = (gr.update(interactive=True), gr.update(interactive=False))
BUSY: tuple[Update, Update] = (gr.update(interactive=False), gr.update(interactive=True))
"""Which of Write and Stop can be pressed."""


def build(place: tab.Place) -> tab.Tab:
    def stream(prompt: str, length: float, temperature: float, top_p: float, key: str) -> Iterator[tab.Shown]:
        if not prompt.strip():
            yield *tab.asking_for(BLANK, "Write a beginning for the model to go on from."), *IDLE
            return
        yield view.working(), "", *UNTOLD, *BUSY
        shown, note, reply, codes = view.empty(BLANK), "", None, UNTOLD
        client = place.client.keyed(key)
        try:
            for reply in client.write(prompt, int(length), temperature, top_p):
                yield view.written(prompt, reply, running=True), "", *UNTOLD, *BUSY
        except EndpointError as error:
            note = view.trouble(error)
        if reply:
            shown, codes = view.written(prompt, reply, running=False), told(client, reply.call)
        yield shown, note, *codes, *BUSY

    with gr.Tab("Write"):
        with gr.Row(equal_height=False):
            with tab.column():
                prompt = tab.text_field("Beginning", "write-prompt", lines=3)
                with gr.Row():
                    length = gr.Slider(
                        8, 256, 64, step=8, label="Length (tokens)", min_width=220, elem_id="write-length"
                    )
                    temperature = gr.Slider(
                        0, 1.5, 0.7, step=0.1, label="Temperature", min_width=220, elem_id="write-temperature"
                    )
                    top_p = gr.Slider(0.1, 1, 1, step=0.05, label="Top p", min_width=220, elem_id="write-top-p")
                with gr.Row():
                    button = tab.button("Write", "write-button")
                    stop = tab.button("Stop", "write-stop", primary=False, interactive=False)
                note = tab.html("", "write-note")
            panel = tab.panel(BLANK, "write-answer")
        examples = tab.examples(place.samples.prompts)
    fields = [prompt, length, temperature, top_p, place.key]
    shown = [panel, note, *place.codes.outputs, button, stop]
    chosen = tab.on(examples.click, lambda index: place.samples.prompts[index], examples, prompt)
    events = [tab.on(event, stream, fields, shown) for event in (button.click, chosen.then)]
    # A stopped stream ends without a last word of its own; what follows it settles the page.
    for event in events:
        tab.on(event.then, lambda html: (view.settled(html, BLANK), *IDLE), panel, [panel, button, stop])
    stop.click(None, cancels=events)
    return tab.Tab(note, events)
