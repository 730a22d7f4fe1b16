"""What the table in `docs/serving.md` promises for unusual input, each over real HTTP with a real model."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

EMOJI = "🙂 👩‍👩‍👧 is red 🟥"
RIGHT_TO_LEFT = "الدائرة حمراء"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/secret"/></svg>'


@pytest.fixture(scope="module")
def http(live: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live, timeout=60) as client:
        yield client


def body(route: str, text: str) -> dict[str, Any]:
    """A request of each route with `text` where a person's words go."""
    return {
        "/qa": {"inputs": {"question": "What?", "context": text}},
        "/chat": {"inputs": [{"role": "user", "content": text}], "parameters": {"max_new_tokens": 2}},
        "/generate": {"inputs": text, "parameters": {"max_new_tokens": 2}},
        "/fill-mask": {"inputs": f"{text}<mask>"},
        "/v1/completions": {"prompt": text, "max_tokens": 2},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": text}], "max_tokens": 2},
    }.get(route, {"inputs": text})


ROUTES = ["/qa", "/translate", "/classify", "/generate", "/fill-mask", "/chat", "/v1/completions"]
ROUTES += ["/v1/chat/completions"]


def asked(http: httpx.Client, route: str, text: str) -> httpx.Response:
    escaped = httpx.Request("POST", "http://x", json=body(route, "TEXT")).content
    return http.post(route, content=escaped.replace(b"TEXT", "".join(map(escape, text)).encode()))


def escape(character: str) -> str:
    """JSON's `\\uXXXX`, in which half of a surrogate pair can be sent."""
    return f"\\u{ord(character):04x}" if character < " " or "\ud800" <= character <= "\udfff" else character


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("a" * 1_000_000, 413, "at most 100,000"),
        ("nul\0l", 422, "null character"),
        ("half \ud83d", 422, "half a surrogate pair"),
        (RIGHT_TO_LEFT, 200, ""),
        (EMOJI, 200, ""),
    ],
    ids=["megabyte", "null byte", "lone surrogate", "right to left", "emoji"],
)
def test_every_route_answers_unusual_text_as_documented(
    http: httpx.Client, route: str, text: str, status: int, said: str
) -> None:
    found = asked(http, route, text)
    assert (found.status_code, said in found.text) == (status, True), found.text


@pytest.mark.parametrize("route", [route for route in ROUTES if route not in ("/fill-mask", "/chat", ROUTES[-1])])
@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_refused(http: httpx.Client, route: str, text: str) -> None:
    found = http.post(route, json=body(route, text))
    assert (found.status_code, "is empty" in found.text) == (422, True)


@pytest.mark.parametrize(
    ("route", "sent", "status", "said"),
    [
        ("/fill-mask", {"inputs": ""}, 422, "inputs is empty"),
        ("/fill-mask", {"inputs": " \n"}, 422, "inputs is empty"),
        ("/chat", {"inputs": ""}, 422, "inputs is empty"),
        ("/chat", body("/chat", ""), 200, ""),
        ("/v1/chat/completions", body("/v1/chat/completions", " \n"), 200, ""),
        ("/v1/completions", {"prompt": [""]}, 422, "prompt[0] is empty"),
        ("/v1/completions", {"prompt": []}, 422, "prompt must be a string or a list of strings"),
        ("/translate", {"inputs": []}, 422, "inputs is an empty list"),
        ("/chat", {"inputs": []}, 422, "must end with a message"),
        ("/v1/chat/completions", {"messages": []}, 422, "must end with a message"),
    ],
)
def test_what_else_may_be_empty_is_answered_as_documented(
    http: httpx.Client, route: str, sent: dict[str, Any], status: int, said: str
) -> None:
    found = http.post(route, json=sent)
    assert (found.status_code, said in found.text) == (status, True), found.text


@pytest.mark.parametrize("context", ["red", f"{EMOJI} red", f"{RIGHT_TO_LEFT} red"])
def test_offsets_count_characters_to_the_last_token(http: httpx.Client, context: str) -> None:
    asked = {"inputs": {"question": "What?", "context": context}, "parameters": {"top_k": 100}}
    found = http.post("/qa", json=asked).json()
    assert all(context[each["start"] : each["end"]] == each["answer"] for each in found)
    assert max(each["end"] for each in found) == len(context)


def drawn(mode: str, form: str, size: tuple[int, int] = (64, 32), **options: Any) -> bytes:
    """A picture whose left third is darker than the rest."""
    picture = Image.new("RGB", size, "orange")
    picture.paste("navy", (0, 0, size[0] // 3, size[1]))
    file = io.BytesIO()
    picture.convert(mode).save(file, form, **options)
    return file.getvalue()


def turned() -> bytes:
    """The same picture stored on its side, with the note (EXIF orientation 6) that a camera would make."""
    lying = Image.open(io.BytesIO(drawn("RGB", "PNG"))).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    lying.save(file, "PNG", exif=exif)
    return file.getvalue()


def vast() -> bytes:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def animated() -> bytes:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("picture", "status", "said"),
    [
        (drawn("RGB", "PNG", (1, 1)), 200, ""),
        (vast(), 413, "too many pixels"),
        (animated(), 200, ""),
        (drawn("CMYK", "JPEG"), 200, ""),
        (turned(), 200, ""),
        (drawn("RGB", "JPEG")[:-200], 415, "broken picture"),
        (SVG, 415, "not a picture"),
        (b"", 400, "is empty"),
    ],
    ids=["1×1", "20,000×20,000", "animated GIF", "CMYK", "EXIF-rotated", "truncated JPEG", "SVG", "nothing"],
)
def test_caption_answers_unusual_pictures_as_documented(
    http: httpx.Client, picture: bytes, status: int, said: str
) -> None:
    found = http.post("/caption", content=picture)
    assert (found.status_code, said in found.text) == (status, True), found.text


def test_a_turned_picture_is_seen_upright_and_of_an_animation_the_first_frame(models: dict[str, str]) -> None:
    from llmray.model.predict import Predictor

    task: Any = Predictor.load(models["captioning"]).task
    assert (task._pixels(turned()) == task._pixels(drawn("RGB", "PNG"))).all()
    assert task._pixels(animated())[:, 0, 0].tolist() == [255, 0, 0]
