"""What names mean to LiteLLM."""

from __future__ import annotations

import pytest

from ollama_proxy.errors import UpstreamAuthError, UpstreamError, UpstreamRefused
from ollama_proxy.settings.upstreams import UpstreamSettings
from ollama_proxy.upstreams.litellm.targets import Targets
from ollama_proxy.upstreams.litellm.upstream import load_litellm
from tests.rig.tables import each_row


def targets() -> Targets:
    return Targets(
        UpstreamSettings(name="lite", kind="litellm", base_url="litellm:"), None, load_litellm()
    )


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("of-nobody", UpstreamRefused),
        ("of-nobody/at-all", UpstreamRefused),
        ("vllm-of-mine/x", UpstreamRefused),
        ("ollama-box/x", UpstreamRefused),
        ("huggingface/http://10.0.0.1/x", UpstreamRefused),
        ("ollama/llama3", UpstreamRefused),
        ("ollama_chat/llama3", UpstreamRefused),
        ("llamafile/x", UpstreamRefused),
        ("siliconflow/x", UpstreamAuthError),
    ],
)
def test_names_that_mean_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, error: type[UpstreamError]
) -> None:
    monkeypatch.delenv("SILICONFLOW_API_KEY", raising=False)
    with pytest.raises(error) as raised:
        targets().resolve(name)
    assert raised.value.status == (404 if error is UpstreamRefused else 502)


@each_row(
    ("name", "one"),
    [
        ("datascope/qwen-max", "dashscope/qwen-max"),
        ("dashscope/qwen-max", "dashscope/qwen-max"),
        ("gpt-4o", "openai/gpt-4o"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("gpt-3.5-turbo-instruct", "openai/gpt-3.5-turbo-instruct"),
        ("command-r", "cohere/command-r"),
        ("cohere_chat/command-r", "cohere/command-r"),
        ("openrouter/openai/gpt-4o", "openrouter/openai/gpt-4o"),
        ("siliconflow/Yi-34B-Chat", "siliconflow/Yi-34B-Chat"),
        ("of-nobody", "of-nobody"),
    ],
)
def test_every_model_has_one_name_whatever_it_is_called(name: str, one: str) -> None:
    assert targets().one_name(name) == one


@pytest.mark.parametrize("name", ["mine", "openai/mine"])
def test_what_is_behind_one_address_has_one_name(name: str) -> None:
    there = UpstreamSettings(name="lite", kind="litellm", base_url="http://localhost:1")
    assert Targets(there, None, load_litellm()).one_name(name) == "openai/mine"
