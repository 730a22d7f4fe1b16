"""The tab that captions a picture: one's own, or a sample scene whose true caption is known.

It does not know how a picture is seen.
"""

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from random import SystemRandom
from typing import Any

import gradio as gr
from PIL import Image

from llmray.corpus.shapes import caption, draw, states_facts
from ui import tab, view
from ui.client import Reply
from ui.samples import sample_scene

BLANK = "The caption appears here."
SCENES = 100_000
SHOWN_PIXELS = 288


def build(place: tab.Place) -> tab.Tab:
    numbers = place.samples.scenes

    def answer(picture: dict[str, Any] | None, scene: int | None, key: str) -> Iterator[tab.Shown]:
        if not picture or not picture.get("path"):
            yield tab.asking_for(BLANK, "Upload a picture, or draw a sample scene.")
            return
        client = place.client.keyed(key)
        # A drawn scene is shown large and sent in the corpus's own size; an upload is sent as it is.
        content = Path(picture["path"]).read_bytes() if scene is None else draw(sample_scene(scene))
        show = partial(_captioned, scene=scene)
        yield from tab.answering(client, BLANK, partial(client.caption, content), show)

    with gr.Tab("Caption"):
        with gr.Row(equal_height=False):
            with tab.column():
                picture = gr.Image(
                    label="Picture",
                    show_label=False,
                    sources=["upload", "clipboard", "webcam"],
                    format="png",
                    height=300,
                    buttons=[],
                    elem_id="caption-picture",
                )
                with gr.Row():
                    button = tab.button("Caption", "caption-button")
                    drawing = tab.button("Draw a sample scene", "caption-draw", primary=False)
                note = tab.html("", "caption-note")
                scene = gr.State(None)
            panel = tab.panel(BLANK, "caption-answer")
        examples = tab.examples([_thumbnail(number) for number in numbers], pictures=True)
    for own in (picture.upload, picture.clear):
        tab.on(own, lambda: (None, view.empty(BLANK), ""), None, [scene, panel, note])
    random = SystemRandom()
    drawn = tab.on(drawing.click, lambda: _drawn(random.randrange(SCENES)), None, [picture, scene])
    chosen = tab.on(examples.click, lambda index: _drawn(numbers[index]), examples, [picture, scene])
    # Unprocessed, the picture is the file as it was uploaded: what is no picture is for the endpoint to refuse.
    fields, events = [picture, scene, place.key], (button.click, drawn.then, chosen.then)
    shown = [panel, note, *place.codes.outputs]
    return tab.Tab(note, [tab.on(event, answer, fields, shown, preprocess=False) for event in events])


def _captioned(reply: Reply[str], scene: int | None) -> str:
    if scene is None:
        return view.said(reply)
    truth = caption(sample_scene(scene))
    return view.captioned(reply, truth, right=states_facts(reply.value, [truth]))


def _drawn(scene: int) -> tuple[Image.Image, int]:
    return Image.open(BytesIO(draw(sample_scene(scene), SHOWN_PIXELS))), scene


def _thumbnail(scene: int) -> str:
    return view.picture(draw(sample_scene(scene)), alt=caption(sample_scene(scene)))
