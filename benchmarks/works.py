"""What is measured: each work is one request, asked in one way, with its budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal[
    "cpu_per_request",
    "cpu_per_token",
    "cpu_share",
    "cpu_added",
    "latency",
    "memory_idle",
    "memory_open",
    "memory_worker",
]
#: Configurations of the gateway: one Ollama, eight of them, one with slots and limits, an
#: OpenAI-compatible provider, and one with more workers.
GatewayName = Literal["gateway", "fleet", "shared", "provider", "workers"]

TOKEN = "bench-token-000000000000"
#: What an SDK sends from behind nginx; with Host and Content-Length they are fifteen.
CLIENT_HEADERS = (
    "Accept: application/json",
    "Accept-Encoding: gzip, deflate",
    "Content-Type: application/json",
    "User-Agent: OpenAI/Python 3.52.0",
    f"Authorization: Bearer {TOKEN}",
    "X-Stainless-Lang: python",
    "X-Stainless-Package-Version: 3.52.0",
    "X-Stainless-OS: Linux",
    "X-Stainless-Arch: x64",
    "X-Stainless-Runtime: CPython",
    "X-Forwarded-For: 192.0.2.17",
    "X-Forwarded-Proto: https",
    "X-Real-IP: 192.0.2.17",
)
MESSAGES = [
    {
        "role": "system",
        "content": "You are a careful assistant. Answer briefly and say when you are not sure.",
    },
    {
        "role": "user",
        "content": "Explain in two sentences why a gateway in front of several model servers is useful.",
    },
]
#: What the scripted upstream has, see `fake_ollama`.
MODELS = (
    "bench:latest",
    "bench:50ms",
    "bench:50ms-x4",
    "bench:50ms-x16",
    "bench:1000ms",
    "bench:0ms-x1000",
)
PACED_MODEL = "bench:50ms"
#: The gateway's own name for the first of them, with a rule.
RULED_MODEL = "ruled"
HELD_MODEL = "bench:1000ms"
UNITS: dict[Kind, str] = {
    "cpu_per_request": "ms/req",
    "cpu_per_token": "us/token",
    "cpu_share": "% more",
    "cpu_added": "ms/req",
    "latency": "ms p50",
    "memory_idle": "MB",
    "memory_open": "MB",
    "memory_worker": "MB",
}
#: Milliseconds of a unit. Works of these kinds have a ratio to what the floor costs.
UNIT_MS: dict[Kind, float] = {
    "cpu_per_request": 1,
    "cpu_per_token": 0.001,
    "cpu_added": 1,
    "latency": 1,
}


@dataclass(frozen=True)
class Request:
    """A POST, the path it must reach the upstream by, and what a good answer ends with."""

    path: str
    body: str
    upstream_path: str
    end_marker: str


@dataclass(frozen=True)
class Work:
    """One row of the table. `tokens` are those of one answer; `native` is the same work for a peer
    that only passes bytes; `budget` is a ratio to the floor if the kind has one, else in the unit
    of the kind; None: there is none. `gateway` is the one that does the work."""

    name: str
    what: str
    kind: Kind
    request: Request
    native: Request
    tokens: int
    connections: int
    budget: float | None = None
    gateway: GatewayName = "gateway"

    @property
    def unit(self) -> str:
        return UNITS[self.kind]

    @property
    def is_relative(self) -> bool:
        """Whether its figure is compared with the floor."""
        return self.kind in UNIT_MS


def encode(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def openai_chat(tokens: int, *, stream: bool, model: str = "bench:latest") -> Request:
    body = {
        "model": model,
        "messages": MESSAGES,
        "max_tokens": tokens,
        "temperature": 0.7,
        "stream": stream,
    }
    end = "data: [DONE]" if stream else '"usage"'
    return Request("/v1/chat/completions", encode(body), "/api/chat", end)


def native_chat(tokens: int, *, stream: bool, model: str = "bench:latest") -> Request:
    options = {"num_predict": tokens, "temperature": 0.7}
    body = {"model": model, "messages": MESSAGES, "options": options, "stream": stream}
    return Request("/api/chat", encode(body), "/api/chat", '"done":true')


def provider_chat(tokens: int, *, stream: bool, model: str = "bench:latest") -> Request:
    """What an OpenAI client asks of a provider; `ruled` is a name with a rule, which is
    why it is translated."""
    return replace(
        openai_chat(tokens, stream=stream, model=model), upstream_path="/v1/chat/completions"
    )


def anthropic_messages(tokens: int, *, model: str = "bench:latest") -> Request:
    system, user = MESSAGES
    body = {
        "model": model,
        "system": system["content"],
        "messages": [user],
        "max_tokens": tokens,
        "stream": True,
    }
    return Request("/v1/messages", encode(body), "/api/chat", "event: message_stop")


def openai_responses(tokens: int, *, model: str = "bench:latest") -> Request:
    body = {
        "model": model,
        "input": MESSAGES,
        "max_output_tokens": tokens,
        "temperature": 0.7,
        "stream": True,
    }
    return Request("/v1/responses", encode(body), "/api/chat", "event: response.completed")


def openai_embeddings(text: str) -> Request:
    return Request(
        "/v1/embeddings", encode({"model": "bench:latest", "input": text}), "/api/embed", '"usage"'
    )


def native_embeddings(text: str) -> Request:
    return Request(
        "/api/embed",
        encode({"model": "bench:latest", "input": text}),
        "/api/embed",
        '"total_duration"',
    )


TEXT = "A gateway in front of several model servers gives every client one address."
EMBEDDINGS, NATIVE_EMBEDDINGS = openai_embeddings(TEXT), native_embeddings(TEXT)
SINGLE, NATIVE_SINGLE = openai_chat(8, stream=False), native_chat(8, stream=False)
STREAM, NATIVE_STREAM = openai_chat(128, stream=True), native_chat(128, stream=True)
MESSAGES_STREAM, RESPONSES_STREAM = anthropic_messages(128), openai_responses(128)
PACED, NATIVE_PACED = (
    make(80, stream=True, model=PACED_MODEL) for make in (openai_chat, native_chat)
)
HELD, NATIVE_HELD = (make(60, stream=True, model=HELD_MODEL) for make in (openai_chat, native_chat))
PROVIDER_SINGLE, PROVIDER_STREAM = provider_chat(8, stream=False), provider_chat(128, stream=True)
RULED_SINGLE = provider_chat(8, stream=False, model=RULED_MODEL)
RULED_STREAM = provider_chat(128, stream=True, model=RULED_MODEL)
OLLAMA_STREAM = replace(native_chat(128, stream=True), upstream_path="/v1/chat/completions")


def make_batched(name: str, count: int) -> Work:
    """Streams whose upstream sends several tokens at a time, as a fast one does or one
    whose reader is late."""
    model = f"{PACED_MODEL}-x{count}"
    tokens = 80 * count
    request, native = (
        make(tokens, stream=True, model=model) for make in (openai_chat, native_chat)
    )
    return Work(
        name, f"the same, {count} tokens at a time", "cpu_per_token", request, native, tokens, 200
    )


def at_provider(name: str, what: str, request: Request, native: Request, tokens: int) -> Work:
    """A work whose answers come from an OpenAI-compatible provider."""
    return Work(
        f"provider-{name}", what, "cpu_per_request", request, native, tokens, 8, gateway="provider"
    )


#: Memory first: before other gateways share its libraries, and idle before the load.
WORKS = (
    Work(
        "memory-idle", "master and one worker, idle", "memory_idle", SINGLE, NATIVE_SINGLE, 8, 1, 50
    ),
    Work(
        "memory-1000",
        "the same with 1,000 open streams",
        "memory_open",
        HELD,
        NATIVE_HELD,
        60,
        1000,
        100,
    ),
    Work(
        "memory-worker",
        "each further worker",
        "memory_worker",
        SINGLE,
        NATIVE_SINGLE,
        8,
        1,
        25,
        "workers",
    ),
    Work(
        "single", "single answer, translated", "cpu_per_request", SINGLE, NATIVE_SINGLE, 8, 8, 1.3
    ),
    Work(
        "single-native",
        "single answer, passed through",
        "cpu_per_request",
        NATIVE_SINGLE,
        NATIVE_SINGLE,
        8,
        8,
        1.2,
    ),
    Work("stream", "128 tokens, translated", "cpu_per_request", STREAM, NATIVE_STREAM, 128, 8, 2.5),
    Work(
        "stream-native",
        "128 tokens, passed through",
        "cpu_per_request",
        NATIVE_STREAM,
        NATIVE_STREAM,
        128,
        8,
        2.0,
    ),
    Work(
        "stream-messages",
        "128 tokens, Anthropic's",
        "cpu_per_request",
        MESSAGES_STREAM,
        NATIVE_STREAM,
        128,
        8,
        2.5,
    ),
    Work(
        "stream-responses",
        "128 tokens, Responses",
        "cpu_per_request",
        RESPONSES_STREAM,
        NATIVE_STREAM,
        128,
        8,
        2.5,
    ),
    Work(
        "embeddings",
        "1,024 numbers, translated",
        "cpu_per_request",
        EMBEDDINGS,
        NATIVE_EMBEDDINGS,
        1,
        8,
        1.4,
    ),
    Work(
        "routing",
        "8 upstreams, 200 models: a single answer",
        "cpu_share",
        SINGLE,
        NATIVE_SINGLE,
        8,
        8,
        5,
        "fleet",
    ),
    Work(
        "shared",
        "slots and limits: added to a single answer",
        "cpu_added",
        SINGLE,
        NATIVE_SINGLE,
        8,
        8,
        0.3,
        "shared",
    ),
    at_provider("single", "single answer, translated", RULED_SINGLE, PROVIDER_SINGLE, 8),
    at_provider(
        "single-passed", "single answer, passed through", PROVIDER_SINGLE, PROVIDER_SINGLE, 8
    ),
    at_provider("stream", "128 tokens, translated", RULED_STREAM, PROVIDER_STREAM, 128),
    at_provider(
        "stream-passed", "128 tokens, passed through", PROVIDER_STREAM, PROVIDER_STREAM, 128
    ),
    at_provider(
        "stream-ollama", "128 tokens, asked by Ollama's client", OLLAMA_STREAM, PROVIDER_STREAM, 128
    ),
    Work(
        "paced",
        "200 streams x 20 tokens/s, translated",
        "cpu_per_token",
        PACED,
        NATIVE_PACED,
        80,
        200,
        0.13,
    ),
    make_batched("paced-4", 4),
    make_batched("paced-16", 16),
    Work(
        "paced-native",
        "200 streams, passed through",
        "cpu_per_token",
        NATIVE_PACED,
        NATIVE_PACED,
        80,
        200,
        0.13,
    ),
    Work(
        "latency",
        "added at concurrency 1, single, translated",
        "latency",
        SINGLE,
        NATIVE_SINGLE,
        8,
        1,
        1.3,
    ),
    Work(
        "latency-native",
        "the same, passed through",
        "latency",
        NATIVE_SINGLE,
        NATIVE_SINGLE,
        8,
        1,
        1.3,
    ),
)


def works_named(names: list[str]) -> list[Work]:
    """The works asked for, in the order of the table; all of them when none is
    named. Raises KeyError."""
    known = {work.name: work for work in WORKS}
    for name in names:
        if name not in known:
            raise KeyError(f"no work {name!r}; there are {', '.join(known)}")
    return [work for work in WORKS if not names or work.name in names]
