"""Images given by URL, through the gateway and all its APIs that take them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from tests.rig import chunk
from tests.rig.calls import TOKEN, access_line, config
from tests.rig.fault_upstream import (
    Chunk,
    Cut,
    Drip,
    FaultUpstream,
    Head,
    ScriptedServer,
    Wait,
    Whole,
)
from tests.rig.http_client import Stream
from tests.rig.local import LocalGateway
from tests.unit.gateway.conversion.pictures import RED, animation, read
from tests.unit.gateway.test_images import HERE, JPEG, NOT_IMAGES, PNG, WEBP


class Face(NamedTuple):
    """One API: its path, a request with these images, and what it calls the first of them."""

    path: str
    body: Callable[[Sequence[str]], dict[str, Any]]
    where: str


def as_chat(urls: Sequence[str]) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, *parts]}],
    }


def as_messages(urls: Sequence[str]) -> dict[str, Any]:
    parts = [{"type": "image", "source": {"type": "url", "url": url}} for url in urls]
    content = [{"type": "text", "text": "what?"}, *parts]
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}


def as_responses(urls: Sequence[str]) -> dict[str, Any]:
    parts = [{"type": "input_image", "image_url": url} for url in urls]
    return {
        "model": "m",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "what?"}, *parts]}],
    }


FACES = {
    "chat completions": Face(
        "/v1/chat/completions", as_chat, "messages[0].content[1].image_url.url"
    ),
    "messages": Face("/v1/messages", as_messages, "messages[0].content[1].source.url"),
    "responses": Face("/v1/responses", as_responses, "input[0].content[1].image_url"),
}
CHAT = FACES["chat completions"]
each_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES)


def ask(
    gateway: LocalGateway, face: Face, *urls: str, request_id: str = "unnamed", **changed: Any
) -> Stream:
    headers = {"X-Request-Id": request_id}
    return gateway.open(face.path, face.body(urls) | changed, headers=headers)


def answer(
    gateway: LocalGateway, face: Face, *urls: str, request_id: str = "unnamed", **changed: Any
) -> tuple[int, str]:
    """Status and body."""
    with ask(gateway, face, *urls, request_id=request_id, **changed) as stream:
        return stream.status, stream.read_all().decode()


@pytest.fixture(scope="module")
def fetching_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    images = {"allow": [HERE], "timeout_s": 0.8, "max_bytes": "64KiB"}
    with LocalGateway(config(shared_upstream.url, images=images)) as running:
        yield running


@pytest.fixture
def gateway(fetching_gateway: LocalGateway, upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway that may fetch from 127.0.0.1 and, but for that, from public addresses alone."""
    yield fetching_gateway
    fetching_gateway.check_idle()


def is_untouched(upstream: FaultUpstream) -> bool:
    """No model was asked."""
    return not [seen for seen in upstream.requests if seen.path == "/api/chat"]


@each_face
@pytest.mark.parametrize("stream", [False, True])
def test_model_gets_the_images_in_their_order(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    pictures: ScriptedServer,
    face: Face,
    stream: bool,
) -> None:
    pictures.script("/slow", [Wait(0.1), Whole(PNG)])
    pictures.script("/quick", [Whole(WEBP)])
    inline = "data:image/jpeg;base64," + b64encode(JPEG).decode()
    urls = [f"{pictures.url}/slow", f"{pictures.url}/quick", f"{pictures.url}/slow"]
    if face.path != "/v1/messages":
        urls.insert(1, inline)
    status, _ = answer(gateway, face, *urls, stream=stream)
    assert status == 200
    sent = upstream.wait_for_request(1, "/api/chat").json()["messages"][0]["images"]
    assert [b64decode(image) for image in sent if image not in inline] == [PNG, WEBP, PNG]
    assert [image in inline for image in sent] == [url == inline for url in urls]
    assert sorted(seen.path for seen in pictures.requests) == ["/quick", "/slow"]


@each_face
def test_an_animation_by_address_becomes_a_png_of_its_first_picture(
    gateway: LocalGateway, upstream: FaultUpstream, pictures: ScriptedServer, face: Face
) -> None:
    pictures.script("/a", [Whole(b64decode(animation()))])
    status, _ = answer(gateway, face, f"{pictures.url}/a")
    assert status == 200
    (sent,) = upstream.wait_for_request(1, "/api/chat").json()["messages"][0]["images"]
    made = read(sent)
    assert (made.format, made.convert("RGB").getpixel((1, 1))) == ("PNG", RED)


@each_face
def test_address_without_end_is_refused_with_its_part(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
) -> None:
    status, body = answer(gateway, face, "http://" + "图" * 100_000)
    assert (status, f"{face.where}: must have at most 8192 characters" in body) == (400, True), body
    assert is_untouched(upstream)


@each_face
def test_server_of_an_image_sees_no_token(
    gateway: LocalGateway, pictures: ScriptedServer, face: Face
) -> None:
    pictures.script("/a", [Whole(PNG)])
    answer(gateway, face, f"{pictures.url}/a")
    names = {name.lower() for name, _ in pictures.requests[0].headers}
    assert names == {"host", "user-agent", "accept", "accept-encoding"}
    assert TOKEN not in str(pictures.requests[0])


@each_face
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([Whole(NOT_IMAGES["a page"])], "must be a PNG, JPEG, WebP or GIF image"),
        ([Whole(b"secret-of-the-server", 404)], "its server answered with status 404"),
        ([Head(200), Chunk(PNG), Cut()], "its server stopped in the middle of its answer"),
        ([Head(200, {"Content-Length": "70000"}), Chunk(PNG), Cut()], "is larger than 65536 bytes"),
        ([Head(200), Chunk(PNG + bytes(70000))], "is larger than 65536 bytes"),
        ([Head(200), Chunk(PNG), Drip(chunk(b"x") * 200, 0.05)], "did not arrive in 0.8 s"),
    ],
    ids=["a page", "404", "cut", "declared too large", "too large", "slow"],
)
def test_image_that_can_not_be_had_is_a_bad_request(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    pictures: ScriptedServer,
    face: Face,
    script: list[Any],
    words: str,
) -> None:
    pictures.script("/a", script)
    status, body = answer(gateway, face, f"{pictures.url}/a", stream=True)
    assert (status, f"{face.where}: {words}" in body) == (400, True), body
    assert "secret-of-the-server" not in body
    assert is_untouched(upstream)


@each_face
def test_log_tells_the_host_and_not_the_query(
    gateway: LocalGateway, pictures: ScriptedServer, request_id: str, face: Face
) -> None:
    pictures.script("/a", [Cut()])
    answer(gateway, face, f"{pictures.url}/a?signature=secret-2", request_id=request_id)
    assert access_line(gateway, request_id)["status"] == 400
    assert "secret-2" not in str([gateway.log_lines(name) for name in ("access", "events")])
