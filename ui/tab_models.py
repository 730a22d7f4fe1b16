"""The tab that lists the models behind the endpoints, with what they scored.  It does not know how they were scored."""

from concurrent.futures import ThreadPoolExecutor

import gradio as gr

from ui import tab, view
from ui.client import About, Client
from ui.trouble import EndpointError

ROUTES = ("/qa", "/translate", "/caption", "/classify", "/generate", "/chat", "/fill-mask")
BLANK = "The models behind the endpoints appear here."


def build(place: tab.Place) -> None:
    with gr.Tab("Models") as shown:
        table = tab.html(view.empty(BLANK), "models-table")
    tab.on(shown.select, lambda key: _table(place.client.keyed(key)), place.key, table)


def _table(client: Client) -> str:
    with ThreadPoolExecutor(len(ROUTES)) as pool:
        found = dict(zip(ROUTES, pool.map(lambda route: _about(client, route), ROUTES), strict=True))
    troubles = [one for one in found.values() if isinstance(one, EndpointError)]
    if len(troubles) == len(found):
        return view.trouble(troubles[0])
    return view.models({route: one for route, one in found.items() if _is_served(one)})


def _is_served(found: About | EndpointError) -> bool:
    return isinstance(found, About) or found.kind != "absent"


def _about(client: Client, route: str) -> About | EndpointError:
    try:
        return client.about(route)
    except EndpointError as error:
        return error
