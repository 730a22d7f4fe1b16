"""The tab that lists the models behind the endpoints, with what they scored.  It does not know how they were scored."""

from concurrent.futures import ThreadPoolExecutor

import gradio as gr

from ui import tab, view
from ui.client import About, Client
from ui.trouble import EndpointError

AT_ONCE = 8
BLANK = "The models behind the endpoints appear here."


def build(place: tab.Place) -> None:
    with gr.Tab("Models") as shown:
        table = tab.html(view.empty(BLANK), "models-table")
    tab.on(shown.select, lambda key: _table(place.client.keyed(key)), place.key, table)


def _table(client: Client) -> str:
    try:
        routes = sorted(client.routes())
    except EndpointError as error:
        return view.trouble(error)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(routes, pool.map(lambda route: _about(client, route), routes), strict=True))
    models = {route: one for route, one in found.items() if _is_model(one)}
    troubles = [one for one in models.values() if isinstance(one, EndpointError)]
    return view.trouble(troubles[0]) if troubles and len(troubles) == len(models) else view.models(models)


def _is_model(found: About | EndpointError) -> bool:
    """`/v1` passes on to the others."""
    return isinstance(found, About) or found.kind != "absent"


def _about(client: Client, route: str) -> About | EndpointError:
    try:
        return client.about(route)
    except EndpointError as error:
        return error
