"""What the tests of systems 3 and 4 share: a gateway in front of commercial providers,
each with its own key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ollama_proxy.settings.schema import Settings, load_settings
from tests.golden.face import TOKEN, AnyGateway, post
from tests.rig.gateway import PROJECT
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.provider import Provider

HELLO = [{"role": "user", "content": "Hello!"}]
#: The models that users of these systems call, by their provider.
MODELS: dict[str, Any] = {
    "dashscope": {
        **{name: {} for name in ("qwen2:7b", "qwen2:14b", "qwen2:72b")},
        **{
            name: {"capabilities": ["embedding"]}
            for name in ("text-embedding-v1", "text-embedding-v2")
        },
    },
    "deepseek": ["deepseek-chat", "deepseek-coder"],
    "siliconflow": {
        "yi-34b-chat": "01-ai/Yi-1.5-34B-Chat",
        "llama3-8b": "meta-llama/Meta-Llama-3-8B-Instruct",
    },
    "volcengine": {"doubao-lite": "doubao-lite-4k", "doubao-pro": "doubao-pro-32k"},
    "openrouter": ["anthropic/claude-3.5-sonnet"],
}
#: The variable of each provider's key. `DATASCOPE` is how one of the systems wrote it.
VARIABLES = {
    "dashscope": "DATASCOPE_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "siliconflow": "SILICONFLOW_API_KEY",
    "volcengine": "VOLCENGINE_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
}
KEYS = {name: f"sk-key-of-{name}" for name in VARIABLES}


def upstreams(provider: Provider, *names: str) -> list[dict[str, Any]]:
    """The configuration of these providers, or of all; only their addresses
    are those of the rig."""
    return [
        {"name": name, "kind": name, "base_url": provider.base_url, "models": MODELS[name]}
        for name in names or MODELS
    ]


def environment(*names: str) -> dict[str, str]:
    """The keys of these providers, or of all."""
    return {VARIABLES[name]: KEYS[name] for name in names or VARIABLES}


def providers_config(provider: Provider, **more: Any) -> dict[str, Any]:
    """The configuration of a gateway with all of them."""
    return {"auth": {"generate_tokens": [TOKEN]}, "upstreams": upstreams(provider), **more}


@contextmanager
def providers_gateway(provider: Provider, **more: Any) -> Iterator[LocalGateway]:
    """A gateway with all of them."""
    with LocalGateway(providers_config(provider, **more), environ=environment()) as running:
        yield running


def chat(gateway: AnyGateway, model: str = "deepseek:deepseek-chat", **fields: Any) -> Answer:
    """A chat of OpenAI's API."""
    return post(gateway, "/v1/chat/completions", {"model": model, "messages": HELLO, **fields})


def shipped(**environ: str) -> Settings:
    """The settings of the shipped file and an environment."""
    return load_settings(PROJECT / "config" / "config.yaml", environ)


def text_of(name: str) -> str:
    """A file of the project."""
    return Path(PROJECT / name).read_text(encoding="utf-8")
