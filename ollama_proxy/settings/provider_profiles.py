"""The differences between providers with OpenAI's API. Each of them can be
set in the configuration.

The profiles follow the providers' documentation of 2026. They name no models,
because those change faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ollama_proxy.settings.declare import read_section, setting
from ollama_proxy.settings.formats import THINK_LEVELS
from ollama_proxy.settings.types import (
    BOOLEAN,
    TEXT,
    SettingType,
    choice,
    list_of,
    map_of,
    optional,
    text_type,
    whole,
)
from ollama_proxy.settings.yaml_file import Entry

#: The parameters that control thinking.
NO_SWITCH, EFFORT, TYPED, ENABLED, REASONING, TEMPLATE = (
    "none",
    "reasoning_effort",
    "thinking",
    "enable_thinking",
    "reasoning",
    "chat_template_kwargs",
)

#: Which turns of the model are sent back with their thinking.
NEVER, TOOL_TURNS, ALWAYS = "never", "tool_turns", "always"

#: A path below the base URL; empty: there is none.
PATH = text_type('a path such as "/completions", or empty', r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")

#: Ollama's options that OpenAI does not have.
EXTRA_OPTIONS = ("top_k", "min_p", "typical_p", "repeat_penalty")

#: Fields with which a request names further models: of OpenRouter, LiteLLM's proxy, Together
#: and LM Studio. The address of any kind may lead to a gateway of another one, so each
#: profile has all of them.
MODEL_FIELDS = ("models", "fallbacks", "safety_model", "draft_model")

#: Fields that choose a provider, an address, a plugin, an adapter or a stored configuration, none
#: of which a list of models covers.
ROUTING_FIELDS = (
    # OpenRouter, Perplexity, OpenAI
    *("provider", "route", "plugins", "transforms", "preset", "web_search_options"),
    # LiteLLM
    *(
        "context_window_fallbacks",
        "content_policy_fallbacks",
        "specific_deployment",
        "deployment_id",
    ),
    *(
        "model_list",
        "user_config",
        "api_base",
        "base_url",
        "api_key",
        "api_version",
        "custom_llm_provider",
    ),
    *(
        "extra_body",
        "extra_headers",
        "prompt_id",
        "guardrails",
        "litellm_metadata",
        "mock_response",
        "tags",
    ),
    *("compound_custom", "search_settings"),  # Groq
    *("enable_search", "search_options", "enable_code_interpreter"),  # DashScope
    # Azure, OpenAI, xAI, others.
    *("data_sources", "moderation", "search_parameters", "providerOptions", "agent_id"),
    *("lora", "kv_transfer_params", "integrations"),  # llama.cpp, vLLM, LM Studio
)


def _by_name(
    names: tuple[str, ...], kind: SettingType[Any], label: str
) -> SettingType[dict[str, Any]]:
    free = map_of(kind)

    def parse(entry: Entry) -> dict[str, Any]:
        """Each value by its name; raises ConfigError for a name that is not known."""
        found = free.parse(entry)
        for name, item in entry.entries.items():
            if name not in names:
                raise item.error(f"is not one of {', '.join(names)}")
        return found

    return SettingType(label, parse)


@dataclass(frozen=True, slots=True)
class Profile:
    """The API of a provider. The defaults suit most servers."""

    limit_field: str = setting(
        "max_tokens",
        "Its field for the limit of an answer.",
        choice("max_tokens", "max_completion_tokens"),
    )
    stream_options: bool = setting(True, "It can send usage in streams.", BOOLEAN)
    thinking: str = setting(
        EFFORT,
        "Its option for thinking.",
        choice(NO_SWITCH, EFFORT, TYPED, ENABLED, REASONING, TEMPLATE),
    )
    efforts: Mapping[str, str] = setting(
        dict[str, str](),
        "Its names for the levels of thinking, if they differ: none, default, "
        "low, medium, high, max.",
        _by_name(("none", "default", *THINK_LEVELS), TEXT, "a mapping from level to word"),
    )
    budgets: Mapping[str, int] = setting(
        dict[str, int](),
        "Tokens for each level, if it has a budget for thinking.",
        _by_name(THINK_LEVELS, whole(1, 1 << 24), "a mapping from level to tokens"),
    )
    reasoning_back: str = setting(
        NEVER,
        "Which turns of the model are sent back with their thinking.",
        choice(NEVER, TOOL_TURNS, ALWAYS),
    )
    reasoning_field: str = setting(
        "reasoning_content", "Its field for thinking.", choice("reasoning_content", "reasoning")
    )
    reasoning_details: bool = setting(
        False,
        "Its opaque thinking blocks are sent back with the calls that followed them.",
        BOOLEAN,
    )
    inline_thinking: bool = setting(
        False, "Thinking is part of the text, between <think> and </think>.", BOOLEAN
    )
    options: Mapping[str, str] = setting(
        dict[str, str](),
        "Further options of Ollama that it supports, and its names for them.",
        _by_name(EXTRA_OPTIONS, TEXT, "a mapping from option to field"),
    )
    json_schema: bool = setting(
        True,
        "It supports a JSON Schema; otherwise the schema becomes an instruction to the model.",
        BOOLEAN,
    )
    json_word: bool = setting(
        False, 'It requires the word "json" in a prompt that requests JSON.', BOOLEAN
    )
    null_content: bool = setting(
        False, "A turn that has only calls has null instead of an empty string.", BOOLEAN
    )
    documents: bool = setting(
        False,
        "Its models read PDF documents; otherwise the gateway sends their text.",
        BOOLEAN,
    )
    stream_only: tuple[str, ...] = setting(
        (), "Models that only stream, as patterns of ids.", list_of(TEXT)
    )
    embedding_batch: int | None = setting(
        None, "Most texts in one embedding request.", optional(whole(1, 1 << 20))
    )
    dimensions: bool = setting(True, "It shortens vectors; otherwise the gateway does.", BOOLEAN)
    completions_path: str = setting("", "Path to complete a plain prompt; empty: as a chat.", PATH)
    insert_path: str = setting(
        "", "Path to complete a prompt with a suffix; empty: not supported.", PATH
    )
    fields: tuple[str, ...] = setting((), "Its own fields that clients may send.", list_of(TEXT))
    model_fields: tuple[str, ...] = setting(
        MODEL_FIELDS,
        "Fields that name further models; a token's list of models applies to them.",
        list_of(TEXT),
    )
    routing_fields: tuple[str, ...] = setting(
        ROUTING_FIELDS,
        "Fields that choose providers, plugins or stored settings; refused for tokens "
        "with a list of models.",
        list_of(TEXT),
    )

    def only_streams(self, model: str) -> bool:
        """Whether a model answers with streams only."""
        return any(fnmatchcase(model, pattern) for pattern in self.stream_only)


_VLLM_OPTIONS = {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"}
_LLAMA_OPTIONS = {name: name for name in EXTRA_OPTIONS}

#: The profiles of the kinds that differ from the defaults.
PROFILES: Mapping[str, Profile] = {
    "openai": Profile(
        limit_field="max_completion_tokens",
        efforts={"max": "xhigh"},
        embedding_batch=2048,
        documents=True,
    ),
    "deepseek": Profile(
        thinking=TYPED,
        reasoning_back=TOOL_TURNS,
        json_schema=False,
        json_word=True,
        insert_path="/beta/completions",
        fields=("thinking",),
    ),
    "dashscope": Profile(
        thinking=ENABLED,
        options={"top_k": "top_k", "repeat_penalty": "repetition_penalty"},
        json_schema=False,
        json_word=True,
        embedding_batch=10,
        fields=("enable_search", "search_options", "enable_thinking", "thinking_budget"),
    ),
    "siliconflow": Profile(
        thinking=ENABLED,
        options={"top_k": "top_k", "min_p": "min_p"},
        json_schema=False,
        embedding_batch=32,
        fields=("enable_thinking", "thinking_budget"),
    ),
    "volcengine": Profile(thinking=TYPED, fields=("thinking",)),
    "openrouter": Profile(
        thinking=REASONING,
        reasoning_back=TOOL_TURNS,
        reasoning_field="reasoning",
        reasoning_details=True,
        options=_VLLM_OPTIONS,
        fields=("models", "plugins", "provider", "route", "top_a", "transforms"),
    ),
    "groq": Profile(
        limit_field="max_completion_tokens", inline_thinking=True, fields=("reasoning_format",)
    ),
    "together": Profile(
        inline_thinking=True, options=_VLLM_OPTIONS, completions_path="/completions"
    ),
    "vllm": Profile(
        thinking=TEMPLATE,
        options=_VLLM_OPTIONS,
        completions_path="/completions",
        insert_path="/completions",
        fields=(
            *(
                "chat_template_kwargs",
                "guided_choice",
                "guided_grammar",
                "guided_json",
                "guided_regex",
                "ignore_eos",
            ),
            *("min_tokens", "priority", "stop_token_ids", "structured_outputs"),
        ),
    ),
    "llamacpp": Profile(
        thinking=TEMPLATE,
        options=_LLAMA_OPTIONS,
        completions_path="/completions",
        fields=("cache_prompt", "chat_template_kwargs", "grammar"),
    ),
    "lmstudio": Profile(
        inline_thinking=True,
        options={name: name for name in ("top_k", "min_p", "repeat_penalty")},
        completions_path="/completions",
        fields=("ttl",),
    ),
}


PROFILE: SettingType[dict[str, Any]] = SettingType(
    "a mapping of settings", lambda entry: read_section(Profile, entry)
)
