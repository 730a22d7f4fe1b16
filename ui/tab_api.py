"""The tab that shows how programs ask what was just asked here.  It does not know what that was."""

from typing import Any

import gradio as gr

from ui import calls
from ui.calls import Call
from ui.client import Client

UNTOLD = [gr.skip()] * 3
"""No call was answered."""
BLANK = "Ask something in another tab; the same request as a command and as a program appears here."


class Codes:
    """Where the last call of this visitor is told; made before the tabs that fill it in."""

    def __init__(self) -> None:
        self.hint = gr.Markdown(BLANK, render=False, elem_id="api-hint")
        self.curl = self._code("shell", "curl", "api-curl")
        self.python = self._code("python", "Python", "api-python")
        self.outputs = [self.hint, self.curl, self.python]

    @staticmethod
    def _code(language: str, label: str, elem_id: str) -> gr.Code:
        looks: dict[str, Any] = {"lines": 1, "wrap_lines": True, "show_line_numbers": False, "buttons": ["copy"]}
        return gr.Code(
            "", language=language, label=label, interactive=False, visible=False, render=False, elem_id=elem_id, **looks
        )


def told(client: Client, call: Call) -> list[object]:
    """Values of `Codes.outputs` after a call."""
    made = [form(client.base_url, call, bool(client.key)) for form in (calls.curl, calls.python)]
    key = " Put your API key into the environment variable `LLMRAY_API_KEY`." if client.key else ""
    asked = f"What was just asked of `{call.route}`.{key} Everything an endpoint understands: `{call.route}/docs`."
    return [asked, *(gr.update(value=code, visible=True) for code in made)]


def build(codes: Codes) -> None:
    with gr.Tab("API"):
        for piece in codes.outputs:
            piece.render()
