"""The client before a real HTTP server: what it sends, what it makes of answers, and of every kind of failure."""

import pickle

import pytest

from llmray.job.errors import JobError
from ui.client import Client, Model
from ui.trouble import EndpointError

CONTEXT = "There is a large red circle above a small yellow square."


@pytest.fixture
def client(endpoints):
    asked = Client(endpoints.url + "/")
    yield asked
    asked.close()


def trouble_of(call) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        call()
    return caught.value


def test_ask_gives_spans_best_first_and_names_who_answered(client, endpoints):
    reply = client.ask("What colour is the circle?", CONTEXT, top_k=2)
    best = reply.value[0]
    assert (best.answer, best.score, best.start, best.end) == ("red", 0.97, 17, 20)
    assert reply.model == Model("shapes-qa", "3")
    assert endpoints.sent == [
        {"inputs": {"question": "What colour is the circle?", "context": CONTEXT}, "parameters": {"top_k": 2}}
    ]


def test_one_answer_outside_a_list_is_a_list_of_one(client, endpoints):
    endpoints.answers["/qa"] = {"answer": "red", "score": 1, "start": 17, "end": 20}
    assert [span.answer for span in client.ask("q", CONTEXT).value] == ["red"]


def test_translate(client, endpoints):
    assert client.translate("a text").value.startswith("Es gibt einen großen roten Kreis")
    assert endpoints.sent == [{"inputs": "a text"}]


def test_caption_sends_the_bytes_as_they_are(client, endpoints):
    assert client.caption(b"\x89PNG...").value == "a large red circle above a small yellow square"
    assert endpoints.sent == [{"bytes": b"\x89PNG..."}]


def test_write_gives_the_text_so_far(client, endpoints):
    texts = [reply.value for reply in client.write("A", 16, 0.7)]
    assert texts[0] == " red"
    assert texts[1] == " red circle"
    assert texts[-1] == " red circle above a small blue square."
    sampling = {"do_sample": True, "temperature": 0.7}
    parameters = {"max_new_tokens": 16, "return_full_text": False, **sampling}
    assert endpoints.sent == [{"inputs": "A", "parameters": parameters, "stream": True}]


def test_no_temperature_means_no_sampling(client, endpoints):
    list(client.write("A", 16, 0))
    assert endpoints.sent[0]["parameters"] == {"max_new_tokens": 16, "return_full_text": False, "do_sample": False}


def test_giving_up_a_stream_ends_it_at_the_endpoint(client, endpoints):
    endpoints.tokens = [" word"] * 10_000
    stream = client.write("A", 16, 0.7)
    next(stream)
    stream.close()
    endpoints.wait_until_quiet()
    assert endpoints.streamed < 1000


def test_a_key_is_sent_only_when_there_is_one(client, endpoints):
    client.translate("a text")
    client.keyed(" llm-clé ").translate("a text")
    client.keyed("").translate("a text")
    sent = [headers.get("authorization") for headers in endpoints.headers]
    assert sent == [None, "Bearer llm-clé".encode().decode("latin-1"), None]


def test_who_enters_no_key_asks_with_the_page_s_own(client, endpoints):
    own = Client(client.base_url, "llmray-page")
    own.keyed(" ").translate("a text")
    own.keyed("llmray-mine").translate("a text")
    own.close()
    assert [headers.get("authorization") for headers in endpoints.headers] == [
        "Bearer llmray-page",
        "Bearer llmray-mine",
    ]


def test_half_a_surrogate_pair_reaches_the_endpoint(client, endpoints):
    client.translate("a \ud83d")
    assert endpoints.sent == [{"inputs": "a \ud83d"}]


def test_model_of_a_route(client, endpoints):
    assert client.model("/qa") == Model("shapes-qa", "3")
    endpoints.trouble["/qa"] = "absent"
    assert trouble_of(lambda: client.model("/qa")).kind == "absent"


@pytest.mark.parametrize(
    ("status", "kind", "what", "way_out"),
    [
        ("400", "refused", "translate says 400.", "Change the input"),
        ("401", "key", "asks for an API key", "Connection"),
        ("403", "key", "asks for an API key", "Connection"),
        ("absent", "absent", "Nothing is deployed at {url}/translate.", "llmray serve"),
        ("413", "refused", "translate says 413.", "smaller"),
        ("415", "refused", "translate says 415.", "PNG"),
        ("422", "refused", "translate says 422.", "Change the input"),
        ("429", "busy", "translate says 429.", "in 7 s"),
        ("503", "busy", "translate says 503.", "in 7 s"),
        ("500", "broken", "translate says 500.", "log"),
        ("418", "broken", "not one of an llmray endpoint", "--url"),
        ("garbage", "broken", "not one of an llmray endpoint", "--url"),
    ],
)
def test_each_failure_says_what_is_wrong_and_what_to_do(client, endpoints, status, kind, what, way_out):
    endpoints.trouble["/translate"] = status
    error = trouble_of(lambda: client.translate("a text"))
    assert error.kind == kind
    assert what.format(url=endpoints.url) in error.what
    assert way_out in error.way_out
    assert str(pickle.loads(pickle.dumps(error))) == f"{error.what} {error.way_out}"


def test_an_endpoint_that_takes_too_long_is_late(endpoints):
    endpoints.trouble["/translate"] = "slow"
    error = trouble_of(lambda: Client(endpoints.url, timeout_s=1.0).translate("a text"))
    assert (error.kind, error.what) == ("late", f"No answer from {endpoints.url}/translate within 1 seconds.")
    assert "in a moment" in error.way_out


def test_a_wrong_key_is_told_from_a_missing_one(client, endpoints):
    endpoints.trouble["/translate"] = "401"
    assert "not accepted" in trouble_of(lambda: client.keyed("wrong").translate("a text")).what


@pytest.mark.parametrize("answer", [[], {}, [{"translation": "x"}], None, [{"translation_text": 5}]])
def test_an_answer_of_another_shape_is_not_understood(client, endpoints, answer):
    endpoints.answers["/translate"] = answer
    assert "not one of an llmray endpoint" in trouble_of(lambda: client.translate("a text")).what


def test_nothing_listening(free_port):
    url = f"http://127.0.0.1:{free_port}"
    error = trouble_of(lambda: Client(url).translate("a text"))
    assert (error.kind, error.what) == ("unreachable", f"Nothing answers at {url}.")


@pytest.mark.parametrize(
    ("how", "what"), [("cut", "broke off"), ("midway", "the model broke"), ("garbage", "not one of an llmray endpoint")]
)
def test_a_stream_that_breaks_keeps_what_came_before(client, endpoints, how, what):
    endpoints.trouble["/generate"] = how
    texts = []
    error = trouble_of(lambda: texts.extend(reply.value for reply in client.write("A", 16, 0.7)))
    assert what in error.what
    assert texts == ([] if how == "garbage" else [" red", " red circle"])


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none(url):
    with pytest.raises(JobError, match="write it like http"):
        Client(url)
