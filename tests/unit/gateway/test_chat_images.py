"""Images that a chat gives by URL are in it when it is sent; everything else stays as the client wrote it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

import pytest

from ollama_proxy.dialects import find_dialect
from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway.chat_images import fetch_images, has_image_urls
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.images import ImageFetcher
from ollama_proxy.hub import ChatRequest, Event, ImageUrl, Message
from ollama_proxy.settings.schema import Images
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from tests.rig.fault_upstream import ScriptedServer, Wait, Whole

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))
INLINE = "aW5saW5l"


@pytest.fixture
def pictures(pictures: ScriptedServer) -> ScriptedServer:
    """A server with two images."""
    pictures.script("/png", [Whole(PNG)])
    pictures.script("/jpeg", [Whole(JPEG)])
    return pictures


def fetch(
    asked: ChatRequest, *, heartbeat_s: float | None = None, mode: str = "public"
) -> tuple[list[Sequence[Event]], ChatRequest]:
    """The batches that come meanwhile, and the chat with its images."""
    exchange = Exchange("id", "POST", "/", "127.0.0.1", find_dialect({"PATH_INFO": "/"}), Call(Timeouts()))
    fetcher = ImageFetcher(Images(fetch=mode, allow=("127.0.0.1",), timeout_s=5))
    steps = fetch_images(asked, fetcher, exchange, heartbeat_s)
    batches: list[Sequence[Event]] = []
    while True:
        try:
            batches.append(next(steps))
        except StopIteration as end:
            return batches, end.value


def chat(*messages: Message) -> ChatRequest:
    return ChatRequest(model="m", messages=list(messages))


def test_each_image_takes_the_place_of_its_url(pictures: ScriptedServer) -> None:
    png, jpeg = (ImageUrl(f"{pictures.url}/{name}", name) for name in ("png", "jpeg"))
    asked = chat(
        Message("system", "Describe."),
        Message("user", "These.", images=[jpeg, INLINE, png]),
        Message("user", "Again.", images=[png]),
    )
    _, complete = fetch(asked)
    there = {"png": b64encode(PNG).decode(), "jpeg": b64encode(JPEG).decode()}
    assert complete == chat(
        Message("system", "Describe."),
        Message("user", "These.", images=[there["jpeg"], INLINE, there["png"]]),
        Message("user", "Again.", images=[there["png"]]),
    )
    assert asked.messages[1].images == [jpeg, INLINE, png]


def test_a_chat_without_urls_is_sent_as_it_is_even_if_fetching_is_off() -> None:
    asked = chat(Message("user", "This.", images=[INLINE]), Message("user", "Well?"))
    batches, complete = fetch(asked, mode="off")
    assert complete == asked
    assert not has_image_urls(asked)
    assert batches == []


def test_heartbeats_come_while_an_image_is_on_its_way(pictures: ScriptedServer) -> None:
    pictures.script("/slow", [Wait(0.3), Whole(PNG)])
    asked = chat(Message("user", images=[ImageUrl(f"{pictures.url}/slow", "image")]))
    batches, complete = fetch(asked, heartbeat_s=0.05)
    assert complete.messages[0].images == [b64encode(PNG).decode()]
    assert batches
    assert not any(batches)


def test_an_image_that_is_missing_is_reported_by_its_place_in_the_chat(pictures: ScriptedServer) -> None:
    pictures.script("/gone", [Whole(b"", 404)])
    asked = chat(
        Message("user", images=[ImageUrl(f"{pictures.url}/png", "messages[0].image")]),
        Message("user", images=[ImageUrl(f"{pictures.url}/gone", "messages[1].image")]),
    )
    with pytest.raises(BadRequest, match="answered with status 404") as caught:
        fetch(asked)
    assert caught.value.param == "messages[1].image"
