"""Answers, standings and troubles as pieces of HTML; every text in them is escaped.

It does not know where they come from or where on the page they go.
"""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

from ui.client import About, Model, Reply, Span
from ui.trouble import EndpointError

Standing = Model | EndpointError
"""Whether an endpoint can answer: the model that would, or what is wrong."""

WORTH_TELLING = 0.01
"""Runners-up less likely than this are not shown."""
_CARET = '<span class="lr-caret"></span>'
_STATE = {"absent": "not deployed", "unreachable": "not reachable", "busy": "no capacity", "late": "slow to answer"}


def header(standings: Mapping[str, Standing]) -> str:
    """What the page is, and for each tab which model answers."""
    items = "".join(_standing(tab, standing) for tab, standing in standings.items())
    return (
        '<header class="lr-header"><div><h1>llmray</h1>'
        "<p>Question answering, translation, captions and writing by models trained on Ray.</p></div>"
        f'<dl class="lr-standings" aria-label="Models">{items}</dl></header>'
    )


def _standing(tab: str, standing: Standing) -> str:
    if isinstance(standing, EndpointError):
        state, shown = "down", _STATE.get(standing.kind, "in trouble")
    else:
        state, shown = "up", _name(standing) or "ready"
    return f'<div class="lr-standing lr-{state}"><dt>{escape(tab)}</dt><dd>{shown}</dd></div>'


def _name(model: Model) -> str:
    version = f" <span>{escape(_version(model.version))}</span>" if model.version else ""
    return escape(model.name) + version if model.name else ""


def _version(version: str) -> str:
    return f"v{version}" if version.isdecimal() else version


def trouble(error: EndpointError) -> str:
    """A calm note: what happened, and the way out."""
    return _note(error.what, error.way_out)


def hint(text: str) -> str:
    """What to fill in before there is anything to ask."""
    return _note(text, "")


def _note(what: str, way_out: str) -> str:
    return f'<div class="lr-note" role="status"><strong>{_prose(what)}</strong> {_prose(way_out)}</div>'


def _prose(text: str) -> str:
    """Escaped, with `code` between backticks set apart."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def empty(text: str) -> str:
    """What a panel says before its first answer."""
    return f'<div class="lr-panel lr-empty">{escape(text)}</div>'


def working() -> str:
    """What a panel says while the endpoint thinks; the second line comes by itself when that takes long."""
    return (
        '<div class="lr-panel lr-working" role="status"><span class="lr-dots"><i></i><i></i><i></i></span>'
        "<p>Still waiting. The model may be starting or have many requests.</p></div>"
    )


def answer(reply: Reply[list[Span]], context: str) -> str:
    """The best answer, marked in its context with its confidence, and the runners-up."""
    if not reply.value or not reply.value[0].answer:
        return _panel('<p class="lr-said">The text gives no answer to this question.</p>', reply)
    best, *others = reply.value
    also = [span for span in others if span.answer and span.answer != best.answer and span.score >= WORTH_TELLING][:2]
    body = f'<p class="lr-said">{escape(best.answer)}</p>{_confidence(best.score)}{_marked(best, context)}'
    return _panel(body + (_runners_up(also) if also else ""), reply)


def _confidence(score: float) -> str:
    percent = min(max(score, 0.0), 1.0) * 100
    return (
        f'<div class="lr-confidence"><div class="lr-bar"><div style="width:{percent:.1f}%"></div></div>'
        f"<span>{percent:.0f}% confident</span></div>"
    )


def _marked(span: Span, context: str) -> str:
    if context[span.start : span.end] != span.answer:
        return f'<p class="lr-context">{escape(context)}</p>'
    before, after = escape(context[: span.start]), escape(context[span.end :])
    return f'<p class="lr-context">{before}<mark>{escape(span.answer)}</mark>{after}</p>'


def _runners_up(spans: Sequence[Span]) -> str:
    items = "".join(f"<li>{escape(span.answer)} <span>{span.score * 100:.0f}%</span></li>" for span in spans)
    return f'<div class="lr-also"><span>Also possible</span><ul>{items}</ul></div>'


def said(reply: Reply[str], lang: str = "en") -> str:
    """A text that is the whole answer."""
    return _panel(f'<p class="lr-said" lang="{lang}">{escape(reply.value)}</p>', reply)


def captioned(reply: Reply[str], truth: str, *, right: bool) -> str:
    """A caption beside what a sample scene really shows."""
    verdict = "True to the scene." if right else "Not true to the scene."
    state = "right" if right else "wrong"
    return _panel(
        f'<p class="lr-said">{escape(reply.value)}</p>'
        f'<div class="lr-truth lr-{state}"><strong>{verdict}</strong> A true caption: {escape(truth)}</div>',
        reply,
    )


def written(prompt: str, reply: Reply[str], *, running: bool) -> str:
    """The prompt and the text that goes on from it, with a caret while more is to come."""
    caret = _CARET if running else ""
    text = f'<p class="lr-written"><span>{escape(prompt)}</span>{escape(reply.value)}{caret}</p>'
    return _panel(text, None if running else reply)


def settled(shown: str, blank: str) -> str:
    """A panel whose stream has ended, of itself or because it was stopped."""
    return empty(blank) if shown == working() else shown.replace(_CARET, "")


def _panel(body: str, reply: Reply | None) -> str:
    by = f'<p class="lr-by">{_by(reply)}</p>' if reply else ""
    return f'<div class="lr-panel" aria-live="polite">{body}{by}</div>'


def _by(reply: Reply) -> str:
    time = f"{reply.seconds * 1000:.0f} ms" if reply.seconds < 1 else f"{reply.seconds:.1f} s"
    return f"Answered by {_name(reply.model) or 'the endpoint'} in {time}"


def models(found: Mapping[str, About | EndpointError]) -> str:
    """A table of what each endpoint tells of its model."""
    rows = "".join(_model_row(route, one) for route, one in found.items())
    heads = "".join(f"<th>{head}</th>" for head in ("Route", "Model", "Engine", "Scores", "Registered"))
    table = f'<table class="lr-models"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="lr-panel">{table}</div>'


def _model_row(route: str, about: About | EndpointError) -> str:
    if isinstance(about, EndpointError):
        return f'<tr><td>{escape(route)}</td><td colspan="4">{_prose(f"{about.what} {about.way_out}")}</td></tr>'
    scores = ", ".join(f"{escape(name)} {value:.4g}" for name, value in about.metrics.items()) or "not scored"
    cells = (_name(Model(about.model, about.version)), escape(about.engine), scores, escape(about.created[:10]) or "no")
    return f"<tr><td>{escape(route)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def picture(png: bytes, alt: str) -> str:
    """A picture within the page itself."""
    return f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(alt)}" width="96" height="96">'


def connection(base_url: str) -> str:
    """Where the endpoints are."""
    return f'<p class="lr-connection">Endpoints at <code>{escape(base_url)}</code></p>'
