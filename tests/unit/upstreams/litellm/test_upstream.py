"""LiteLLM's names, what it knows of models, and its failures in our words."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ollama_proxy.errors import ConfigError, UpstreamAuthError, UpstreamError
from ollama_proxy.hub import ChatRequest, Message
from ollama_proxy.settings.upstreams import PRESETS, Preset, UpstreamModel, UpstreamSettings
from ollama_proxy.upstreams.litellm import targets
from ollama_proxy.upstreams.litellm.errors import decode_exception, strip_labels
from ollama_proxy.upstreams.litellm.upstream import LiteLLMUpstream, build, load_litellm
from ollama_proxy.upstreams.transport.session import HttpTransport
from tests.rig.provider import CHAT, HELLO, Provider
from tests.rig.tables import each_row
from tests.unit.upstreams.stock import new_call

KEY = "sk-" + "0123" * 6


def upstream(**models: UpstreamModel) -> LiteLLMUpstream:
    declared = UpstreamSettings(name="lite", kind="litellm", base_url="litellm:", models=models)
    return build(declared, None, HttpTransport)


def asked(model: str) -> ChatRequest:
    return ChatRequest(model=model, messages=[Message("user", "hi")])


@pytest.mark.parametrize(
    ("name", "kind", "variable"),
    [
        ("datascope/qwen-turbo", "dashscope", "DATASCOPE_API_KEY"),
        ("datascope/qwen-turbo", "dashscope", "DASHSCOPE_API_KEY"),
        ("siliconflow/Yi-34B-Chat", "siliconflow", "SILICONFLOW_API_KEY"),
    ],
)
def test_providers_that_litellm_does_not_know_are_reached_with_their_keys(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str, variable: str
) -> None:
    with Provider(key=KEY) as server:
        monkeypatch.setattr(targets, "PRESETS", PRESETS | {kind: moved(PRESETS[kind], server)})
        monkeypatch.setenv(variable, KEY)
        events = [event for batch in upstream().chat(asked(name), new_call()) for event in batch]
        assert events[0] == type(events[0])(HELLO)
        assert server.bodies(CHAT)[0]["model"] == name.partition("/")[2]


def moved(preset: Preset, server: Provider) -> Preset:
    return Preset(server.base_url, preset.key_variables, preset.protocol, needs_key=True)


@pytest.mark.parametrize("name", ["gpt-4", "claude-3-7-sonnet-20250219", "volcengine/x"])
def test_a_provider_without_a_key_is_not_the_clients_fault(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("OPENAI", "ANTHROPIC", "VOLCENGINE"):
        monkeypatch.delenv(f"{variable}_API_KEY", raising=False)
    with pytest.raises(UpstreamAuthError):
        upstream().chat(asked(name), new_call())


@pytest.mark.parametrize(
    ("model", "capabilities"),
    [
        ("gpt-4o", {"completion", "tools", "vision"}),
        ("deepseek/deepseek-reasoner", {"completion", "thinking"}),
        ("text-embedding-3-small", {"embedding"}),
        ("openai/of-mine", None),
    ],
)
def test_what_a_model_can_do(model: str, capabilities: set[str] | None) -> None:
    found = upstream().capabilities(model, new_call())
    assert found is None if capabilities is None else found and capabilities <= found


def test_configured_capabilities_come_first() -> None:
    listed = upstream(mine=UpstreamModel("gpt-4o", ("completion",), 1000))
    assert listed.capabilities("gpt-4o", new_call()) == {"completion"}
    assert [model.name for model in listed.models(new_call())] == ["gpt-4o"]


def test_only_an_upstream_without_a_list_takes_any_model() -> None:
    assert upstream().takes_any_model
    assert not upstream(mine=UpstreamModel("gpt-4o")).takes_any_model


@pytest.mark.parametrize("has_address", [True, False])
@pytest.mark.parametrize("name", ["ollama/llama3", "ollama_chat/llama3"])
def test_a_server_of_ollamas_own_is_asked_where_it_was_configured(
    monkeypatch: pytest.MonkeyPatch, name: str, has_address: bool
) -> None:
    with Provider() as server:
        monkeypatch.setenv("OLLAMA_API_BASE", server.url)
        models = {} if has_address else {"mine": UpstreamModel(name)}
        base_url = server.url if has_address else "litellm:"
        declared = UpstreamSettings(name="lite", kind="litellm", base_url=base_url, models=models)
        with pytest.raises(UpstreamError):  # it is none of Ollama's
            list(build(declared, None, HttpTransport).chat(asked(name), new_call()))
        assert server.requests


@each_row(
    ("text", "said"),
    [
        ("litellm.BadRequestError: OpenAIException - what they said", "what they said"),
        ("litellm.RateLimitError: RateLimitError: DeepseekException - slow: down", "slow: down"),
        (
            "litellm.UnsupportedParamsError: no temperature=2. To drop it, set `x`",
            "no temperature=2.",
        ),
        ("litellm.APIConnectionError: x\nTraceback (most recent call last):\n  File", "x"),
        ("what they said", "what they said"),
    ],
)
def test_texts_without_what_litellm_puts_around_them(text: str, said: str) -> None:
    assert strip_labels(text) == said


class HTTPStatusError(Exception):
    """As the HTTP client raises it, with an answer that was never read."""

    class response:  # noqa: N801
        status_code = 429
        headers: dict[str, str] = {"Retry-After": "3"}  # noqa: RUF012

        @property
        def content(self) -> bytes:
            raise RuntimeError("not read")


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("a prompt, and a key"),
        KeyError("a prompt, and a key"),
        ImportError("No module named 'x' a prompt, and a key"),
    ],
)
def test_a_failure_of_litellm_itself_is_told_without_its_text(failure: Exception) -> None:
    error = decode_exception(failure, model="m")
    assert (type(error), error.status) == (UpstreamError, 502)
    assert "prompt" not in str(error) + error.detail


class BadRequestError(Exception):
    """As LiteLLM raises it."""

    status_code = 400
    message = "litellm.BadRequestError: " + "x" * 5000


class ContextWindowExceededError(BadRequestError):
    """As LiteLLM raises it."""


@pytest.mark.parametrize("failure", [BadRequestError(), ContextWindowExceededError()])
def test_a_long_text_of_litellm_is_cut(failure: Exception) -> None:
    assert str(decode_exception(failure, model="m")).count("x") == 2000


def test_an_answer_that_was_never_read_still_has_its_status() -> None:
    failure: Any = HTTPStatusError()
    failure.response = HTTPStatusError.response()
    error = decode_exception(failure, model="m")
    assert (error.status, "prompt" in str(error)) == (429, False)


def test_a_missing_package_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ConfigError, match="make install EXTRAS=litellm"):
        load_litellm()
