"""The web page in front of the endpoints at one base URL, and the server that shows it.

It does not know what answers behind them: it speaks HTTP only, and loads nothing from outside.
"""

import atexit
import errno
import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import gradio as gr

from llmray.job.errors import ClusterError, JobError
from ui import tab, tab_api, tab_ask, tab_caption, tab_models, tab_translate, tab_write, view
from ui.client import Client
from ui.samples import Samples
from ui.style import CSS
from ui.theme import theme
from ui.trouble import EndpointError

FIRST_PORT, PORTS, TRIES = 7860, 100, 5
UPLOADS_KEPT_S = 3600
ROUTES = {"Ask": "/qa", "Translate": "/translate", "Caption": "/caption", "Write": "/generate"}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1f6870"/>'
    '<circle cx="11" cy="20" r="5" fill="#fff"/><path d="M20 7l6 10H14z" fill="#aed8d9"/></svg>'
)


def build(base_url: str, examples: Samples | None = None, *, key: str = "", timeout_s: float = 30.0) -> gr.Blocks:
    """The page, not yet shown; an endpoint that takes longer than `timeout_s` is called late.

    `key` is used for those who enter none.
    """
    client = Client(base_url, key, timeout_s=timeout_s)
    with gr.Blocks(title="llmray", analytics_enabled=False, delete_cache=(UPLOADS_KEPT_S, UPLOADS_KEPT_S)) as page:
        head = tab.html(view.header({}), "header")
        entered = gr.Textbox("", label="API key", type="password", render=False, elem_id="key", max_lines=1)
        place = tab.Place(client, examples or Samples(), entered, tab_api.Codes())
        with gr.Tabs():
            made = [each.build(place) for each in (tab_ask, tab_translate, tab_caption, tab_write)]
            tab_models.build(place)
            tab_api.build(place.codes)
        with gr.Accordion("Connection", open=False, elem_id="connection"):
            tab.html(view.connection(client.base_url), "endpoints")
            entered.render()
        tab.on(page.load, lambda: _standings(client), None, [head, *(one.note for one in made)])
        for event in (event for one in made for event in one.asked):
            tab.on(event.then, lambda: _standings(client)[0], None, head)
    return page


def _standings(client: Client) -> list[str]:
    """The header, and for each tab a note where its endpoint cannot answer."""
    with ThreadPoolExecutor(len(ROUTES)) as pool:
        found = list(pool.map(lambda route: _standing(client, route), ROUTES.values()))
    notes = [view.trouble(one) if isinstance(one, EndpointError) else "" for one in found]
    return [view.header(dict(zip(ROUTES, found, strict=True))), *notes]


def _standing(client: Client, route: str) -> view.Standing:
    try:
        return client.model(route)
    except EndpointError as error:
        return error


def launch(
    base_url: str,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    key: str = "",
    examples: Samples | None = None,
    timeout_s: float = 30.0,
) -> tuple[str, Callable[[], None]]:
    """Show the page at its URL until the returned function is called; with no port, at a free one."""
    folder = _folder()
    page = build(base_url, examples, key=key, timeout_s=timeout_s)
    for left in reversed(range(TRIES if port is None else 1)):  # pages that start at once find the same port free
        chosen = _port(host, port)
        try:
            url = _serve(page, host, chosen, folder)
            break
        except OSError as error:
            if not left:
                raise _taken(host, chosen, error) from None
    return url, lambda: page.close(verbose=False)


@cache
def _folder() -> Path:
    """This process's own folder for uploads, removed with it.

    Gradio's, /tmp/gradio, belongs to whoever of the machine's users came first; only the environment names another.
    """
    folder = mkdtemp(prefix="llmray-ui-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.setdefault("GRADIO_TEMP_DIR", folder)
    return Path(folder)


def _serve(page: gr.Blocks, host: str, port: int, folder: Path) -> str:
    icon = folder / "icon.svg"
    icon.write_text(_ICON)
    page.queue(default_concurrency_limit=None, api_open=False)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        head=f"<style>{CSS}</style>",
        favicon_path=icon,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        share=False,
        pwa=False,
        mcp_server=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    return url


def _port(host: str, wanted: int | None) -> int:
    """The wanted port, or a free one: the first from 7860 on, or any."""
    if wanted is not None and not 0 < wanted < 65536:
        raise JobError(f"port: found {wanted}; allowed: 1 to 65535, or none for a free one")
    for port in (wanted,) if wanted else (*range(FIRST_PORT, FIRST_PORT + PORTS), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return int(probe.getsockname()[1])
            except OSError as error:
                if wanted or error.errno != errno.EADDRINUSE:
                    raise _taken(host, port, error) from None
    raise AssertionError("the system gives a free port or an error")


def _taken(host: str, port: int, error: OSError) -> ClusterError:
    if error.errno in (errno.EADDRINUSE, None):
        return ClusterError(
            f"port {port} of {host} is taken by another program; give another one (`llmray ui --port N`), or none for a"
            " free one"
        )
    if error.errno == errno.EACCES:
        return ClusterError(f"port {port} of {host} needs more rights; take a port of 1024 or more")
    return ClusterError(f"{host} is no address of this machine ({error}); take 127.0.0.1, or 0.0.0.0 for all of them")
