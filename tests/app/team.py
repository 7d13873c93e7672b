"""A team's models and tokens, as the tests of `models` have them, and how they ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.golden.face import TOKEN, local_gateway
from tests.rig.calls import EMBEDDINGS, FACES, Face
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

Document = dict[str, Any]

ALIAS_ONLY, TARGET_ONLY, NOBODY = "alias-only-token", "target-only-token", "nothing-token"
TOKENS = [
    TOKEN,
    {"name": "alias", "token": ALIAS_ONLY, "models": ["coder"], "scopes": ["read", "generate"]},
    {"name": "target", "token": TARGET_ONLY, "models": ["qwen3*"]},
    {"name": "nobody", "token": NOBODY, "models": ["none"]},
]
MODELS: Document = {
    "coder": {"target": "ollama:qwen3:8b"},
    "Team Model": {"target": "qwen3:8b"},
    "shadowed": {"target": "tiny-test"},
    "ghost": {"target": "tiny-test", "hidden": True},
    "secret:latest": {"hidden": True},
    "plainly": {"timeouts": {"total_s": 50}},
    "ruled": {
        "options": {"num_ctx": 8192, "temperature": 0.1},
        "think": "high",
        "keep_alive": "30m",
    },
    "limited": {"clamp": {"num_ctx": 32768, "num_predict": 4096, "keep_alive": "1h"}},
    "silent": {"target": "thinker", "exclude_reasoning": True},
    "quick": {"request_timeout": 100},
    "spoken": {"system": {"remove": ["SECRET "], "replace": {"cat": "dog"}, "prepend": "Rules."}},
    "mute": {"system": {"remove": True}},
    "covered:*": {"keep_alive": "5m"},
    "claude-*": {"target": "qwen3:8b"},
    "pinned": {"target": "tiny-test", "pin_options": True},
    "gpt-oss:120b-cloud": {"keep_alive": "5m"},
    "big": {"target": "kimi:cloud"},
}
#: What the model server has.
HAS = ("qwen3:8b", "tiny-test:latest", "shadowed:latest", "secret:latest", "other:latest")

LEGACY = Face("/api/embeddings", {"model": "m", "prompt": "hi"}, "/api/embeddings", {})
VECTORS = {**EMBEDDINGS, "native embeddings": LEGACY}
EVERY = {**FACES, **VECTORS}

each_text = pytest.mark.parametrize("name", FACES)
each_vector = pytest.mark.parametrize("name", VECTORS)
each_one = pytest.mark.parametrize("name", EVERY)


def team_gateway(upstream: FaultUpstream) -> AbstractContextManager[LocalGateway]:
    """A gateway with these models."""
    auth = {"generate_tokens": TOKENS}
    return local_gateway(upstream, auth=auth, models=MODELS, default_model="coder")


gateway = module_fixture(lambda shared_upstream: team_gateway(shared_upstream))
#: For tests of what a gateway remembers of its upstream.
new_gateway = function_fixture(lambda upstream: team_gateway(upstream))


@pytest.fixture(autouse=True)
def stocked(upstream: FaultUpstream) -> None:
    """The model server is healthy, and has its models."""
    upstream.script("/api/embeddings", [Json({"embedding": [0.5, 0.25]})])
    rows = [
        {"name": name, "model": name, "digest": "5b" * 32, "modified_at": "2026-01-01T00:00:00Z"}
        for name in HAS
    ]
    upstream.script("/api/tags", [Json({"models": rows})])
    upstream.script("/api/ps", [Json({"models": [row | {"context_length": 512} for row in rows]})])


def ask(
    gateway: LocalGateway,
    name: str,
    model: str,
    token: str = TOKEN,
    *,
    stream: bool = False,
    **fields: Any,
) -> Answer:
    """A call by one of the ways, with these fields over its own."""
    face = EVERY[name]
    body = {
        **face.body,
        "model": model,
        **({} if name in VECTORS else {"stream": stream}),
        **fields,
    }
    return gateway.request("POST", face.path, body, bearer(token))


def sent(upstream: FaultUpstream, name: str) -> Document:
    """What the model was asked in the end."""
    document: Document = [
        seen for seen in upstream.requests if seen.path == EVERY[name].upstream_path
    ][-1].json()
    return document


def clamped(answer: Answer) -> str | None:
    return answer.headers.get("X-Ollama-Proxy-Clamped")


def documents(answer: Answer) -> Iterator[Any]:
    """The JSON objects of an answer, whole or streamed in any of the ways."""
    lines = answer.body.splitlines()
    texts = [line.removeprefix(b"data: ") for line in lines if line.startswith((b"data: {", b"{"))]
    yield from map(json.loads, texts)


def models_in(value: Any) -> set[str]:
    """Every model that an answer names."""
    if isinstance(value, dict):
        own = {value["model"]} if isinstance(value.get("model"), str) else set()
        return own.union(*map(models_in, value.values()))
    return set[str]().union(*map(models_in, value)) if isinstance(value, list) else set()


def named(answer: Answer) -> set[str]:
    return set[str]().union(*map(models_in, documents(answer)))
