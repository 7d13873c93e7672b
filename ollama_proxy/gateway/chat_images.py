"""Fetches the images that a chat names by URL, before the chat is sent."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.images import ImageFetcher
from ollama_proxy.hub import ChatRequest, Event, ImageUrl


def has_image_urls(asked: ChatRequest) -> bool:
    """Whether any image of the chat has to be fetched."""
    return any(isinstance(image, ImageUrl) for message in asked.messages if message.images for image in message.images)


def fetch_images(
    asked: ChatRequest, fetcher: ImageFetcher, exchange: Exchange, heartbeat_s: float | None
) -> Generator[Sequence[Event], None, ChatRequest]:
    """Returns the chat with every image inline; yields an empty batch for each `heartbeat_s` seconds that it takes."""
    wanted = [image for message in asked.messages for image in message.images if isinstance(image, ImageUrl)]
    images = yield from fetcher.fetch_all(wanted, exchange.call, exchange.caller, heartbeat_s)
    fetched = dict(zip(wanted, images, strict=True))
    messages = [
        replace(message, images=[fetched[each] if isinstance(each, ImageUrl) else each for each in message.images])
        if message.images
        else message
        for message in asked.messages
    ]
    return replace(asked, messages=messages)
