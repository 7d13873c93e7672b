"""Which images are converted, and what becomes of a request with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway.conversion import images
from ollama_proxy.gateway.conversion.images import convert_images, convert_native_images
from ollama_proxy.gateway.conversion.process import ConversionFailed
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.hub import ChatRequest, Message
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from tests.rig.tables import each_row
from tests.unit.gateway.conversion import finished
from tests.unit.gateway.conversion.pictures import picture, read

GIF, OTHER_GIF, WEBP, PNG, JPEG = (
    picture("GIF"),
    picture("GIF", (2, 2)),
    picture("WEBP"),
    picture("PNG"),
    picture("JPEG"),
)
ONLY_GIF, BOTH = frozenset({"image/gif"}), frozenset({"image/gif", "image/webp"})


def chat(*lists: list[str]) -> ChatRequest:
    return ChatRequest(
        model="m",
        messages=[Message("user", f"m{n}", attachments=each) for n, each in enumerate(lists)],
    )


def convert(asked: ChatRequest, unreadable: frozenset[str] = BOTH) -> ChatRequest:
    return finished(convert_images(asked, model(unreadable), Call(Timeouts()), None))


def model(*unreadable: frozenset[str]) -> ResolvedModel:
    """A model on servers that can't read these."""
    nodes = [
        (SimpleNamespace(upstream=SimpleNamespace(unreadable_images=each)), "m")
        for each in unreadable
    ]
    return cast(ResolvedModel, SimpleNamespace(route=SimpleNamespace(nodes=nodes)))


def test_what_any_server_of_the_model_cannot_read_is_converted() -> None:
    asked = chat([PNG], [WEBP])
    done = finished(convert_images(asked, model(ONLY_GIF, BOTH), Call(Timeouts()), None))
    assert list(done.messages[1].attachments) not in ([WEBP], [])


def test_only_what_cannot_be_read_is_converted_and_everything_keeps_its_place() -> None:
    asked = chat([PNG, GIF, JPEG], [], [WEBP, OTHER_GIF, GIF])
    done = convert(asked, ONLY_GIF)
    assert [message.content for message in done.messages] == ["m0", "m1", "m2"]
    first, _, last = (list(message.attachments) for message in done.messages)
    assert (first[0], first[2], last[0]) == (PNG, JPEG, WEBP)
    assert [read(str(image)).size for image in (first[1], last[1], last[2])] == [
        (8, 6),
        (2, 2),
        (8, 6),
    ]
    assert first[1] == last[2]


@pytest.mark.parametrize(
    ("asked", "unreadable"),
    [(chat([], [PNG, JPEG]), BOTH), (chat([GIF]), frozenset()), (chat([WEBP]), ONLY_GIF)],
)
def test_a_chat_with_nothing_to_convert_is_the_same(
    asked: ChatRequest, unreadable: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "run_program", None)
    assert convert(asked, unreadable) is asked


@pytest.mark.parametrize(
    ("image", "unreadable", "words"),
    [
        (GIF[:40], ONLY_GIF, "A GIF image can't .* it is damaged: send it as JPEG, PNG or WebP"),
        (WEBP[:40], BOTH, "A WebP image can't .* it is damaged: send it as JPEG or PNG"),
    ],
)
def test_a_damaged_image_is_refused_with_the_formats_that_work(
    image: str, unreadable: frozenset[str], words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        convert(chat([PNG], [image]), unreadable)


def fails(*_: object) -> None:
    raise ConversionFailed("it took longer than 20 s")


def test_a_failed_program_is_a_refusal_for_translated_clients_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "run_program", fails)
    with pytest.raises(
        BadRequest, match=r"because it took longer than 20 s: send it as JPEG, PNG or WebP\."
    ):
        convert(chat([GIF]), ONLY_GIF)
    data = {"model": "m", "prompt": "p", "images": [GIF]}
    assert convert_native_images(data, ONLY_GIF, Call(Timeouts())) is data


def test_a_native_body_gets_its_images_converted_wherever_they_are() -> None:
    data: dict[str, Any] = {
        "model": "m",
        "images": [GIF],
        "messages": [
            {"role": "user", "content": "x", "images": [PNG, GIF], "other": 1},
            {"role": "user"},
        ],
    }
    edited = convert_native_images(data, ONLY_GIF, Call(Timeouts()))
    assert read(edited["images"][0]).format == "PNG"
    first, second = edited["messages"]
    assert (first["role"], first["content"], first["other"], first["images"][0]) == (
        "user",
        "x",
        1,
        PNG,
    )
    assert read(first["images"][1]).format == "PNG"
    assert second == {"role": "user"}
    assert data["images"] == [GIF] and data["messages"][0]["images"] == [PNG, GIF]


@each_row(
    "data",
    [
        {"model": "m"},
        {"messages": None, "images": None},
        {"messages": "x", "images": "GIF8"},
        {"messages": [None, 1, "x", {"images": {"a": GIF}}, {"images": [1, None, {}, ["x"], PNG]}]},
        {"messages": [{"images": [GIF[:40]]}]},
    ],
)
def test_a_native_body_without_anything_that_can_be_converted_says_the_same(
    data: dict[str, Any],
) -> None:
    assert convert_native_images(data, BOTH, Call(Timeouts())) == data
