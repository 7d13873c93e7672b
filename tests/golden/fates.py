"""Every field of OpenAI's requests, what has to become of it, and how one sees that it counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ollama_proxy.dialects.embeddings import EmbeddingsSchema
from ollama_proxy.dialects.openai.schemas import ChatSchema, CompletionSchema
from ollama_proxy.dialects.schema_fields import CARRIED, MAPPED, REFUSED
from tests.golden.face import forwarded, post
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway

Document = dict[str, Any]

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
UPSTREAM = {CHAT: "/api/chat", COMPLETION: "/api/generate", EMBEDDING: "/api/embed"}
SCHEMAS = {CHAT: ChatSchema(), COMPLETION: CompletionSchema(), EMBEDDING: EmbeddingsSchema()}
USER: list[Document] = [{"role": "user", "content": "Hi"}]
SMALLEST: dict[str, Document] = {
    CHAT: {"model": "m", "messages": USER},
    COMPLETION: {"model": "m", "prompt": "Hi"},
    EMBEDDING: {"model": "m", "input": "Hi"},
}
TOOL: Document = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}

#: The fields of OpenAI's three requests, as of August 2026.
FIELDS = {
    CHAT: """audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens
        messages metadata modalities model moderation n parallel_tool_calls prediction presence_penalty
        prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort response_format
        safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools
        top_logprobs top_p user verbosity web_search_options""".split(),
    COMPLETION: """best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed
        stop stream stream_options suffix temperature top_p user""".split(),
    EMBEDDING: "dimensions encoding_format input model user".split(),
}


@dataclass
class Asked:
    """One request to the gateway, its answer, and what the upstream got for it."""

    answer: Answer
    sent: Document

    @property
    def ignored(self) -> list[str]:
        return (self.answer.headers.get("X-Ollama-Proxy-Ignored") or "").split(", ")

    @property
    def options(self) -> Document:
        options: Document = self.sent.get("options", {})
        return options


Ask = Callable[..., Asked]


def asking(smallest: Mapping[str, Document]) -> Any:
    """A fixture: ``ask(path, temperature=0)`` sends the smallest request of a path with this field
    over it. The first path need not be named, and other addresses take its request."""
    usual = next(iter(smallest))

    @pytest.fixture
    def ask(gateway: LocalGateway, upstream: FaultUpstream) -> Ask:
        def run(path: str = usual, **fields: Any) -> Asked:
            answer = post(gateway, path, smallest.get(path, smallest[usual]) | fields)
            seen = [
                one.json()
                for one in forwarded(upstream)
                if one.path == UPSTREAM.get(path, "/api/chat")
            ]
            return Asked(answer, seen[-1] if seen else {})

        return run

    return ask


ask = asking(SMALLEST)


@dataclass(frozen=True)
class Fate:
    """What has to become of one field: an example of it, and how one sees that it counted."""

    kind: str
    value: Any
    shows: Callable[[Asked], bool] = lambda asked: False
    beside: Document = field(default_factory=dict)


def option(name: str, value: Any) -> Callable[[Asked], bool]:
    return lambda asked: asked.options.get(name) == value


def sent(name: str, value: Any) -> Callable[[Asked], bool]:
    return lambda asked: asked.sent.get(name) == value


def streams(asked: Asked) -> bool:
    return asked.sent["stream"] is True and asked.answer.body.endswith(b"data: [DONE]\n\n")


def shows_usage(asked: Asked) -> bool:
    return b'"choices":[],"usage":{' in asked.answer.body


SAMPLING = {
    "frequency_penalty": Fate(MAPPED, 0.5, option("frequency_penalty", 0.5)),
    "presence_penalty": Fate(MAPPED, -0.5, option("presence_penalty", -0.5)),
    "temperature": Fate(MAPPED, 0.25, option("temperature", 0.25)),
    "top_p": Fate(MAPPED, 0.75, option("top_p", 0.75)),
    "seed": Fate(MAPPED, 42, option("seed", 42)),
    "max_tokens": Fate(MAPPED, 9, option("num_predict", 9)),
    "stop": Fate(MAPPED, ["a", "b"], option("stop", ["a", "b"])),
    "model": Fate(MAPPED, "other:tag", sent("model", "other:tag")),
    "stream": Fate(MAPPED, True, streams),
    "stream_options": Fate(MAPPED, {"include_usage": True}, shows_usage, {"stream": True}),
    "logit_bias": Fate(CARRIED, {"50256": -100}),
    "n": Fate(MAPPED, 2, lambda asked: len(asked.answer.json()["choices"]) == 2),
    # Its place is the access log, where a test of its own looks for it.
    "user": Fate(MAPPED, "somebody", lambda asked: asked.answer.status == 200),
}
FATES: dict[str, dict[str, Fate]] = {
    CHAT: SAMPLING
    | {
        "messages": Fate(
            MAPPED,
            [{"role": "user", "content": "Yo"}],
            lambda a: a.sent["messages"][0]["content"] == "Yo",
        ),
        "max_completion_tokens": Fate(MAPPED, 5, option("num_predict", 5)),
        "logprobs": Fate(MAPPED, True, sent("logprobs", True)),
        "top_logprobs": Fate(MAPPED, 3, sent("top_logprobs", 3), {"logprobs": True}),
        "reasoning_effort": Fate(MAPPED, "low", sent("think", "low")),
        "response_format": Fate(MAPPED, {"type": "json_object"}, sent("format", "json")),
        "tools": Fate(MAPPED, [TOOL], sent("tools", [TOOL])),
        "tool_choice": Fate(
            MAPPED, "none", lambda asked: "tools" not in asked.sent, {"tools": [TOOL]}
        ),
        # That only the first call comes is told by a test of its own.
        "parallel_tool_calls": Fate(MAPPED, False, lambda asked: asked.ignored == [""]),
        "audio": Fate(REFUSED, {"voice": "alloy", "format": "wav"}),
        "modalities": Fate(REFUSED, ["text", "audio"]),
        "functions": Fate(MAPPED, [TOOL["function"]], sent("tools", [TOOL])),
        "function_call": Fate(
            MAPPED,
            "none",
            lambda asked: "tools" not in asked.sent,
            {"functions": [TOOL["function"]]},
        ),
        "web_search_options": Fate(CARRIED, {"search_context_size": "low"}),
        "metadata": Fate(CARRIED, {"team": "a"}),
        "moderation": Fate(CARRIED, {"mode": "auto"}),
        "prediction": Fate(CARRIED, {"type": "content", "content": "x"}),
        "prompt_cache_key": Fate(CARRIED, "key"),
        "prompt_cache_options": Fate(CARRIED, {"ttl": "1h"}),
        "prompt_cache_retention": Fate(CARRIED, "24h"),
        "safety_identifier": Fate(CARRIED, "hash"),
        "service_tier": Fate(CARRIED, "priority"),
        "store": Fate(CARRIED, True),
        "verbosity": Fate(CARRIED, "low"),
    },
    COMPLETION: SAMPLING
    | {
        "prompt": Fate(MAPPED, "Yo", sent("prompt", "Yo")),
        "suffix": Fate(MAPPED, "end", sent("suffix", "end")),
        "logprobs": Fate(MAPPED, 2, sent("top_logprobs", 2)),
        "best_of": Fate(MAPPED, 2, sent("logprobs", True)),
        "echo": Fate(
            MAPPED, True, lambda asked: asked.answer.json()["choices"][0]["text"].startswith("Hi")
        ),
    },
    EMBEDDING: {
        "model": SAMPLING["model"],
        "input": Fate(MAPPED, ["a", "b"], sent("input", ["a", "b"])),
        "dimensions": Fate(MAPPED, 16, sent("dimensions", 16)),
        "encoding_format": Fate(
            MAPPED,
            "base64",
            lambda asked: isinstance(asked.answer.json()["data"][0]["embedding"], str),
        ),
        "user": SAMPLING["user"],
    },
}
