"""Images in a format that a model's server can't read, as PNG."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway.conversion.process import (
    ConversionFailed,
    in_background,
    run_program,
    wait_for,
)
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.hub import ChatRequest, Json
from ollama_proxy.upstreams import Call
from ollama_proxy.wire import base64_media_type

T = TypeVar("T")

PROGRAM = Path(__file__).with_name("png_program.py")

#: Of all images of one request that are converted: pixels, and bytes as PNG.
MAX_PIXELS, MAX_BYTES = 25_000_000, 40 << 20

NAMES = {"image/gif": "GIF", "image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WebP"}

#: By the image as it came: as PNG in base64, or why that failed.
Converted = Mapping[str, Mapping[str, str]]


def convert_images(
    asked: ChatRequest, resolved: ResolvedModel, call: Call, heartbeat_s: float | None
) -> Generator[tuple[()], None, ChatRequest]:
    """Returns the chat with images that every server of the model can read, the chat itself if
    it has no others: a request may be sent to another one. Yields after each `heartbeat_s`
    seconds that it takes. Raises BadRequest for an image that can't be converted, with the
    formats that need not be."""
    unreadable = frozenset[str]().union(
        *(node.upstream.unreadable_images for node, _ in resolved.route.nodes)
    )
    found = _select([message.attachments for message in asked.messages], unreadable)
    if not found:
        return asked
    try:
        converted = yield from in_background(partial(_convert, found), call, heartbeat_s)
    except ConversionFailed as failure:
        converted = dict.fromkeys(found, {"problem": str(failure)})
    for image, outcome in converted.items():
        if "problem" in outcome:
            raise _refused(image, outcome["problem"], unreadable)
    messages = [
        replace(message, attachments=_converted_list(message.attachments, converted))
        if message.attachments
        else message
        for message in asked.messages
    ]
    return replace(asked, messages=messages)


def convert_native_images(
    data: dict[str, Json], unreadable: Set[str], call: Call
) -> dict[str, Json]:
    """A native body with images that can be read; `data` itself if there is nothing to convert. An
    image that can't be converted stays as it is: the server reports what is wrong with it."""
    given = data.get("messages")
    messages = given if isinstance(given, list) else []
    found = _select([_images_of(holder) for holder in (data, *messages)], unreadable)
    if not found:
        return data
    try:
        converted = wait_for(partial(_convert, found), call)
    except ConversionFailed:
        return data
    edited: dict[str, Json] = _with_converted(data, converted)
    return (
        edited | {"messages": [_with_converted(each, converted) for each in messages]}
        if messages
        else edited
    )


def _select(lists: Iterable[Sequence[Json]], unreadable: Set[str]) -> list[str]:
    """The images that have to be converted, each once."""
    texts = (each for images in lists for each in images if isinstance(each, str))
    return list(dict.fromkeys(each for each in texts if base64_media_type(each) in unreadable))


def _convert(images: Sequence[str]) -> Converted:
    job = {"images": images, "max_pixels": MAX_PIXELS, "max_bytes": MAX_BYTES}
    return dict(zip(images, run_program(PROGRAM, job)["images"], strict=True))


def _refused(image: str, problem: str, unreadable: Set[str]) -> BadRequest:
    kind = NAMES[base64_media_type(image)]
    *others, last = [name for media_type, name in NAMES.items() if media_type not in unreadable]
    return BadRequest(
        f"A {kind} image can't be converted for this model's server, because {problem}: "
        f"send it as {', '.join(others)} or {last}.",
        param="messages",
    )


def _images_of(holder: Json) -> Sequence[Json]:
    images = holder.get("images") if isinstance(holder, dict) else None
    return images if isinstance(images, list) else ()


def _with_converted(holder: Json, converted: Converted) -> Json:
    images = _images_of(holder)
    return holder | {"images": _converted_list(images, converted)} if images else holder


def _converted_list(images: Sequence[T], converted: Converted) -> list[T | str]:
    return [
        converted[each].get("png", each) if isinstance(each, str) and each in converted else each
        for each in images
    ]
