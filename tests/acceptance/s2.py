"""What the tests of system 2 share: the gateway that its users would set
up, and how they ask it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.golden.face import TOKEN, forwarded, local_gateway, post
from tests.rig.fault_upstream import MODEL, FaultUpstream, Json
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import Replay, recording

NARROW = "token-of-one-model"
HELLO = [{"role": "user", "content": "Hello!"}]
CHAT: dict[str, Any] = {"model": "tiny-test", "messages": HELLO}
MESSAGE = CHAT | {"max_tokens": 100}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(64))
FUNCTION = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
TOOL = {"type": "function", "function": FUNCTION}
#: The operator's word on models; each name stands for the upstream's only one.
MODELS: dict[str, dict[str, Any]] = {
    "coder": {
        "target": MODEL,
        "options": {"num_ctx": 8192, "temperature": 0.2, "top_p": 0.9, "num_predict": 500},
    },
    "thinker": {"target": MODEL, "think": "high", "request_timeout": 99999999},
    "plain": {"target": MODEL, "think": True, "exclude_reasoning": True},
    "hurried": {"target": MODEL, "timeout_ms": 300},
}
CODER: dict[str, Any] = MODELS["coder"]["options"]


def config(upstream: FaultUpstream, **more: Any) -> dict[str, Any]:
    tokens = [TOKEN, {"name": "narrow", "token": NARROW, "models": ["coder"]}]
    return {"auth": {"generate_tokens": tokens}, "service": {"base_url": upstream.url}, **more}


@contextmanager
def team_gateway(upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """The gateway of the team."""
    with local_gateway(upstream, **config(upstream, models=MODELS)) as running:
        yield running


def reset(upstream: FaultUpstream) -> None:
    """The model server is healthy, and its model can do everything."""
    upstream.clear()
    upstream.script(
        "/api/show", [Json({"capabilities": ["completion", "tools", "thinking", "vision"]})]
    )


def replay(upstream: FaultUpstream, name: str) -> None:
    row = recording(name)
    upstream.script(row.path, [Replay(row)])


def sent(upstream: FaultUpstream) -> dict[str, Any]:
    """The last question to a model that reached the upstream."""
    asked = [
        seen
        for seen in forwarded(upstream)
        if seen.path in ("/api/chat", "/api/generate", "/api/embed")
    ]
    document: dict[str, Any] = asked[-1].json()
    return document


def chat(gateway: LocalGateway, **fields: Any) -> Answer:
    return post(gateway, "/v1/chat/completions", CHAT | fields)


def message(gateway: LocalGateway, **fields: Any) -> Answer:
    return post(gateway, "/v1/messages", MESSAGE | fields)


def said(answer: Answer) -> dict[str, Any]:
    """The message of a whole chat completion."""
    assert answer.status == 200, answer.text
    spoken: dict[str, Any] = answer.json()["choices"][0]["message"]
    return spoken
