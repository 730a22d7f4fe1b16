"""What the four tabs have in common: how they are laid out, asked and answered.

It does not know any tab's own fields.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr
from gradio.events import Dependency

from ui import view
from ui.client import Client, Reply
from ui.samples import Samples
from ui.tab_api import UNTOLD, Codes, told
from ui.trouble import EndpointError

T = TypeVar("T")
Shown = tuple[Any, ...]
"""What a panel says, the note beside the button, and the tab for programs."""


@dataclass(frozen=True)
class Place:
    """What every tab is built with."""

    client: Client
    samples: Samples
    key: gr.Textbox
    codes: Codes


@dataclass(frozen=True)
class Tab:
    """A tab as the page sees it: the note beside its button, and the events that ask its endpoint."""

    note: gr.HTML
    asked: list[Dependency]


def answering(
    client: Client, blank: str, ask: Callable[[], Reply[T]], show: Callable[[Reply[T]], str]
) -> Iterator[Shown]:
    """Wait in the panel, then show the answer there, or the trouble beside the button."""
    yield view.working(), "", *UNTOLD
    try:
        reply = ask()
        yield show(reply), "", *told(client, reply.call)
    except EndpointError as error:
        yield view.empty(blank), view.trouble(error), *UNTOLD


def asking_for(blank: str, hint: str) -> Shown:
    """What to fill in first."""
    return view.empty(blank), view.hint(hint), *UNTOLD


def on(
    event: Callable[..., Dependency], fn: Callable[..., Any], inputs: Any, outputs: Any, **options: Any
) -> Dependency:
    """Listen to an event without Gradio's own spinner, and without offering the function to other programs."""
    return event(fn, inputs, outputs, show_progress="hidden", api_visibility="private", **options)


def column() -> gr.Column:
    """One of two columns that stand side by side, or one above the other on a phone."""
    return gr.Column(scale=1, min_width=300)


def html(value: str, elem_id: str) -> gr.HTML:
    """A piece that only our own style sheet dresses."""
    return gr.HTML(value, apply_default_css=False, elem_id=elem_id)


def panel(blank: str, elem_id: str) -> gr.HTML:
    with column():
        return html(view.empty(blank), elem_id)


def text_field(label: str, elem_id: str, *, lines: int = 1, placeholder: str = "") -> gr.Textbox:
    return gr.Textbox(
        "",
        label=label,
        lines=lines,
        max_lines=14,
        placeholder=placeholder,
        autoscroll=False,
        elem_id=elem_id,
    )


def button(text: str, elem_id: str, *, primary: bool = True, interactive: bool = True) -> gr.Button:
    return gr.Button(
        text,
        variant="primary" if primary else "secondary",
        size="md",
        interactive=interactive,
        elem_id=elem_id,
        elem_classes="lr-go",
    )


def examples(shown: Sequence[str], *, pictures: bool = False) -> gr.Dataset:
    """Texts, or pictures as HTML, of which one can be chosen; the event gives its index."""
    return gr.Dataset(
        components=["html" if pictures else "textbox"],
        samples=[[one] for one in shown],
        sample_labels=None if pictures else list(shown),
        type="index",
        layout="gallery",
        label="Try one of these",
        elem_classes="lr-examples",
    )
