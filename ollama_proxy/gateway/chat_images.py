"""The images of a chat that are given by address, fetched before the chat is sent."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.images import ImageFetcher
from ollama_proxy.hub import ChatRequest, Event, ImageUrl


def fetch_images(
    asked: ChatRequest, fetcher: ImageFetcher, exchange: Exchange, heartbeat_s: float | None
) -> Generator[Sequence[Event], None, ChatRequest]:
    """Returns the chat with every image in it; yields an empty batch for each `heartbeat_s` seconds that it takes."""
    wanted = [image for message in asked.messages for image in message.images if isinstance(image, ImageUrl)]
    if not wanted:
        return asked
    images = yield from fetcher.fetch_all(wanted, exchange.call, exchange.caller, heartbeat_s)
    fetched = dict(zip(wanted, images, strict=True))
    messages = [
        replace(message, images=[fetched[each] if isinstance(each, ImageUrl) else each for each in message.images])
        if message.images
        else message
        for message in asked.messages
    ]
    return replace(asked, messages=messages)
