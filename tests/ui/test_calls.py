"""What the page shows of the last call really asks the same."""

import contextlib
import io
import shutil
import subprocess

import pytest

from ui import calls
from ui.client import Client

NASTY = "Is it 'red', \"blue\" or $HOME? \\ ü 🙂"
CONTEXT = "A red circle. $(ls)"


def asked(endpoints, ask):
    """The call that the page's client made, and what the endpoint was sent."""
    client = Client(endpoints.url)
    reply = ask(client)
    client.close()
    return reply.call, endpoints.sent.pop()


ASKING = {
    "qa": lambda client: client.ask(NASTY, CONTEXT, top_k=3),
    "translate": lambda client: client.translate(NASTY),
    "caption": lambda client: client.caption(b"\x89PNG picture"),
    "generate": lambda client: list(client.write(NASTY, 16, 0.7, 0.9))[-1],
}


@pytest.fixture(params=ASKING)
def call(request, endpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMRAY_API_KEY", "llm-secret")
    (tmp_path / calls.PICTURE).write_bytes(b"\x89PNG picture")
    return asked(endpoints, ASKING[request.param])


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_command(call, endpoints):
    made, sent = call
    done = subprocess.run(["bash", "-c", calls.curl(endpoints.url, made, True)], capture_output=True, check=True)
    assert done.stdout
    assert endpoints.sent[-1] == sent
    assert endpoints.headers[-1]["authorization"] == "Bearer llm-secret"


def test_the_program(call, endpoints):
    made, sent = call
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(calls.python(endpoints.url, made, True), {})
    assert printed.getvalue().strip()
    assert meant(endpoints.sent[-1]) == meant(sent)
    assert endpoints.headers[-1]["authorization"] == "Bearer llm-secret"


def meant(sent):
    """A body without what the client adds and leaves empty."""
    if "parameters" not in sent:
        return sent
    given = {key: value for key, value in sent["parameters"].items() if value not in (None, [])}
    return {key: value for key, value in sent.items() if key != "parameters"} | ({"parameters": given} if given else {})


def test_without_a_key_none_is_asked_for(endpoints):
    made, _ = asked(endpoints, ASKING["qa"])
    for form in (calls.curl, calls.python):
        assert "LLMRAY_API_KEY" not in form(endpoints.url, made, False)
