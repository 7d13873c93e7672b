"""Images in formats that an Ollama server of some version can't read, through a real gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import gevent
import pytest

from tests.golden.face import TOKEN, local_gateway
from tests.rig.boxes import Box
from tests.rig.errors import assert_error, dialect_of
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.unit.gateway.conversion.pictures import huge_gif, picture, read

WITHOUT_WEBP, CURRENT = "0.31.0", "0.32.15"
GIF, WEBP, PNG = picture("GIF"), picture("WEBP"), picture("PNG")
MEDIA = {GIF: "gif", WEBP: "webp", PNG: "png"}


def as_chat(model: str, image: str, kind: str) -> dict[str, Any]:
    url = {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}}
    return {
        "model": model,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, url]}],
    }


def as_messages(model: str, image: str, kind: str) -> dict[str, Any]:
    source = {"type": "base64", "media_type": f"image/{kind}", "data": image}
    content = [{"type": "text", "text": "what?"}, {"type": "image", "source": source}]
    return {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": content}]}


def as_responses(model: str, image: str, kind: str) -> dict[str, Any]:
    parts = [{"type": "input_image", "image_url": f"data:image/{kind};base64,{image}"}]
    return {"model": model, "input": [{"role": "user", "content": parts}]}


def as_native_chat(model: str, image: str, kind: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "what?", "images": [image]}],
        "stream": False,
    }


def as_native_prompt(model: str, image: str, kind: str) -> dict[str, Any]:
    return {"model": model, "prompt": "what?", "images": [image], "stream": False}


Ask = Callable[[str, str, str], dict[str, Any]]
TRANSLATED: dict[str, Ask] = {
    "/v1/chat/completions": as_chat,
    "/v1/messages": as_messages,
    "/v1/responses": as_responses,
}
NATIVE: dict[str, Ask] = {"/api/chat": as_native_chat, "/api/generate": as_native_prompt}
FACES = TRANSLATED | NATIVE
each_face = pytest.mark.parametrize("path", FACES)


@pytest.fixture(scope="module")
def boxes() -> Iterator[dict[str, Box]]:
    """One of each version, each with a model of its own, and one that both have."""
    with ExitStack() as stack:
        old, new = (
            Box("old", ["m-old", "m-both"], version=WITHOUT_WEBP),
            Box("new", ["m-new", "m-both"], version=CURRENT),
        )
        yield {box.name: stack.enter_context(box) for box in (old, new)}


@pytest.fixture(scope="module")
def gateway(boxes: dict[str, Box]) -> Iterator[LocalGateway]:
    with local_gateway(upstreams=[box.declared for box in boxes.values()]) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(boxes: dict[str, Box]) -> None:
    for box in boxes.values():
        box.clear()


def ask(gateway: LocalGateway, path: str, model: str, image: str) -> Answer:
    body = FACES[path](model, image, MEDIA.get(image, "gif"))
    return gateway.request("POST", path, body, bearer(TOKEN))


def shown(box: Box) -> list[str]:
    """The images of the one prompt that a box got."""
    (prompt,) = box.prompts
    body = prompt.json()
    images: list[str] = body["images"] if "images" in body else body["messages"][-1]["images"]
    return images


@each_face
@pytest.mark.parametrize(
    ("name", "image"), [("old", GIF), ("old", WEBP), ("new", GIF)], ids=["GIF", "WebP", "new GIF"]
)
def test_an_image_that_the_server_cannot_read_arrives_as_png(
    gateway: LocalGateway, boxes: dict[str, Box], path: str, name: str, image: str
) -> None:
    answer = ask(gateway, path, f"m-{name}", image)
    assert answer.status == 200, answer.text
    (sent,) = shown(boxes[name])
    made = read(sent)
    assert (made.format, made.size, made.convert("RGB").getpixel((1, 1))) == (
        "PNG",
        (8, 6),
        (255, 0, 0),
    )


@each_face
@pytest.mark.parametrize(
    ("name", "image"), [("new", WEBP), ("new", PNG), ("old", PNG)], ids=["WebP", "PNG", "old PNG"]
)
def test_an_image_that_the_server_can_read_is_sent_as_it_is(
    gateway: LocalGateway, boxes: dict[str, Box], path: str, name: str, image: str
) -> None:
    assert ask(gateway, path, f"m-{name}", image).status == 200
    assert shown(boxes[name]) == [image]


def test_a_model_on_servers_of_both_versions_gets_what_both_can_read(
    gateway: LocalGateway, boxes: dict[str, Box]
) -> None:
    assert ask(gateway, "/v1/chat/completions", "m-both", WEBP).status == 200
    (box,) = (box for box in boxes.values() if box.prompts)
    assert read(shown(box)[0]).format == "PNG"


@pytest.mark.parametrize("path", TRANSLATED)
@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        (
            "new",
            GIF[:40],
            "A GIF image can't be converted for this model's server, because it is damaged: send "
            "it as JPEG, PNG or WebP.",
        ),
        ("old", WEBP[:40], "because it is damaged: send it as JPEG or PNG."),
        ("new", huge_gif(), "because it has 65535 x 65535 pixels, which is too many"),
    ],
    ids=["cut GIF", "cut WebP", "bomb"],
)
def test_what_cannot_be_converted_is_refused_with_the_formats_that_work(
    gateway: LocalGateway, boxes: dict[str, Box], path: str, name: str, image: str, words: str
) -> None:
    assert words in assert_error(ask(gateway, path, f"m-{name}", image), dialect_of(path), 400)
    assert boxes[name].prompts == []


@pytest.mark.parametrize("path", NATIVE)
def test_ollamas_own_api_leaves_what_cannot_be_converted_to_the_server(
    gateway: LocalGateway, boxes: dict[str, Box], path: str
) -> None:
    assert ask(gateway, path, "m-new", GIF[:40]).status == 200
    assert shown(boxes["new"]) == [GIF[:40]]


def test_other_requests_go_on_while_a_large_image_is_converted(
    gateway: LocalGateway, boxes: dict[str, Box]
) -> None:
    large = picture("WEBP", (3000, 2000))
    converting = gevent.spawn(ask, gateway, "/v1/messages", "m-old", large)
    answered = 0
    while not converting.ready():
        gevent.sleep(0.01)
        assert gateway.request(path="/livez").status == 200
        answered += 1
    assert converting.get().status == 200
    assert answered > 5
    assert read(shown(boxes["old"])[0]).size == (3000, 2000)
