"""A provider of OpenAI's API behind a gateway, and what the tests of bytes that
pass say and ask there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.golden import face
from tests.golden.face import post
from tests.rig import SSE, SeenRequest
from tests.rig.fault_upstream import Chunk, Head, Script
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.provider import CHAT, COMPLETIONS, EMBEDDINGS, KEY, Provider, row, upstream_entry

#: The name that the provider has itself, and one that only the team knows.
OWN, ALIAS = "org/model-1", "gpt-lab"
HEARTBEAT_S = 0.1
ASKED: Any = [{"role": "user", "content": "hi"}]
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 2},
}
DONE = b"data: [DONE]\n\n"
MODELS = {
    ALIAS: {"target": f"lab:{OWN}"},
    "ruled": {"target": f"lab:{OWN}", "system": {"prepend": "Be brief."}},
    "limited": {"target": f"lab:{OWN}", "timeouts": {"idle_s": 0.3}},
}


@contextmanager
def provider_gateway(provider: Provider, start: Any = face.local_gateway) -> Iterator[Any]:
    """A gateway with this upstream alone, in the process of the test unless `start` is another."""
    lab = upstream_entry(
        provider.base_url,
        api_key_env="LAB_SECRET",
        profile={
            "completions_path": "/completions",
            "insert_path": "/insert",
            "embedding_batch": 3,
        },
    )
    limits = {"first_byte_s": 4, "idle_s": 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_SECRET", KEY)
        settings: dict[str, Any] = {
            "upstreams": [lab],
            "models": MODELS,
            "default_model": ALIAS,
            "timeouts": limits,
        }
        with start(stream={"heartbeat_s": HEARTBEAT_S}, **settings) as running:
            yield running


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[Provider]:
    """The module's provider. Tests ask for `provider`."""
    with Provider(row(OWN), key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def shared_gateway(shared_provider: Provider) -> Iterator[LocalGateway]:
    """One gateway for the module, in front of its provider."""
    with provider_gateway(shared_provider) as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: LocalGateway, provider: Provider) -> Iterator[LocalGateway]:
    """The module's gateway, with a provider without scripts; a test leaves nothing open."""
    yield shared_gateway
    shared_gateway.check_idle()


def asked(provider: Provider, path: str = CHAT) -> list[SeenRequest]:
    """What was asked of a model."""
    return [seen for seen in provider.requests if seen.path == path]


def chunk(text: str = "", reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of a chat, as providers write them."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}
    return {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": OWN,
        "choices": [choice],
    } | fields


def events(*documents: Any) -> bytes:
    """A stream, spaced as Python's own writer does it."""
    return b"".join(
        b"data: " + json.dumps(each, ensure_ascii=False).encode() + b"\n\n" for each in documents
    )


STREAM = (
    b": PROCESSING\n\n"
    + events(
        chunk("你好 🌍 \u2028"), chunk(" model", x_extra={"a": [1e2, 1.50]}), chunk("", "stop")
    )
    + events({"choices": [], "model": OWN, "usage": USAGE})
    + DONE
)
ANSWER: dict[str, Any] = {
    "id": "c-1",
    "object": "chat.completion",
    "model": OWN,
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "length"}
    ],
    "usage": USAGE,
    "x_extra": 1.50,
}
WISHES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": ASKED},
    COMPLETIONS: {"prompt": "hi"},
    EMBEDDINGS: {"input": "hi"},
}


def streamed(body: bytes, edges: int | None = None) -> Script:
    """A script that sends these bytes of a stream in pieces of `edges` bytes."""
    size = edges or len(body)
    return [
        Head(200, SSE),
        *(Chunk(body[start : start + size]) for start in range(0, len(body), size)),
    ]


def ask(
    gateway: LocalGateway, model: str = OWN, path: str = CHAT, *, stream: bool = True, **fields: Any
) -> Answer:
    """What a client gets."""
    return post(gateway, path, {"model": model, **WISHES[path], "stream": stream} | fields)
