"""Profiles of providers: what is known of a kind, and what an operator knows better."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.provider_profiles import PROFILES, Profile
from ollama_proxy.settings.upstreams import PRESETS, PROFILED, UPSTREAMS, UpstreamSettings
from ollama_proxy.settings.yaml_file import parse_value
from tests.rig.tables import each_row


def declared(text: str) -> UpstreamSettings:
    [upstream] = UPSTREAMS.parse(parse_value(f"[{{name: x, {text}}}]", "c.yaml:1", "upstreams"))
    return upstream


def spoken(text: str) -> Profile:
    return declared(text).spoken


def test_every_profile_is_one_of_a_kind_that_has_some() -> None:
    assert all(PRESETS[kind].protocol in PROFILED for kind in PROFILES)


@each_row("kind", PROFILES)
def test_what_is_known_of_a_kind_counts(kind: str) -> None:
    base_url = PRESETS[kind].base_url or "http://h:1/v1"
    assert spoken(f"kind: {kind}, base_url: '{base_url}'") == PROFILES[kind]


def test_a_server_elsewhere_is_not_openai() -> None:
    assert spoken("kind: openai, base_url: 'http://h:1/v1'") == Profile()
    assert spoken("kind: openai").limit_field == "max_completion_tokens"


def test_a_provider_elsewhere_is_still_itself() -> None:
    assert spoken("kind: dashscope, base_url: 'https://eu.example/v1'") == PROFILES["dashscope"]


GIVEN: dict[str, tuple[str, Any]] = {
    "limit_field": ("max_completion_tokens", "max_completion_tokens"),
    "stream_options": ("false", False),
    "thinking": ("enable_thinking", "enable_thinking"),
    "efforts": ("{max: xhigh, none: minimal}", {"max": "xhigh", "none": "minimal"}),
    "budgets": ("{low: 512}", {"low": 512}),
    "reasoning_back": ("always", "always"),
    "reasoning_field": ("reasoning", "reasoning"),
    "reasoning_details": ("true", True),
    "inline_thinking": ("true", True),
    "options": ("{top_k: k}", {"top_k": "k"}),
    "json_schema": ("false", False),
    "json_word": ("true", True),
    "null_content": ("true", True),
    "documents": ("true", True),
    "stream_only": ('["qwq-*"]', ("qwq-*",)),
    "embedding_batch": ("10", 10),
    "dimensions": ("false", False),
    "completions_path": ("/completions", "/completions"),
    "insert_path": ("/beta/completions", "/beta/completions"),
    "fields": ("[provider]", ("provider",)),
    "model_fields": ("[more]", ("more",)),
    "routing_fields": ("[]", ()),
}


def test_every_switch_can_be_set() -> None:
    assert set(GIVEN) == set(Profile.__dataclass_fields__)


@each_row("name", GIVEN)
def test_the_word_of_the_operator_goes_first(name: str) -> None:
    text, value = GIVEN[name]
    assert getattr(spoken(f"kind: deepseek, profile: {{{name}: {text}}}"), name) == value


def test_what_is_not_said_stays_as_it_is_known() -> None:
    assert spoken("kind: deepseek, profile: {json_word: false}").reasoning_back == "tool_turns"


@each_row(
    ("text", "complaint"),
    [
        ("kind: openai, profile: {limit: 1}", "unknown setting"),
        (
            "kind: openai, profile: {limit_field: tokens}",
            "one of max_tokens, max_completion_tokens",
        ),
        ("kind: openai, profile: {efforts: {huge: x}}", "is not one of none, default, low"),
        ("kind: openai, profile: {budgets: {none: 1}}", "is not one of low"),
        ("kind: openai, profile: {budgets: {low: 0}}", "a whole number"),
        ("kind: openai, profile: {options: {num_ctx: n}}", "is not one of top_k"),
        ("kind: openai, profile: {insert_path: 'http://h/x'}", "a path such as"),
        ("kind: openai, profile: {insert_path: '/../x'}", "a path such as"),
        ("kind: openai, profile: {insert_path: beta}", "a path such as"),
        ("kind: ollama, profile: {json_word: true}", "has no effect for the kind ollama"),
        ("kind: anthropic, profile: {json_word: true}", "has no effect for the kind anthropic"),
    ],
)
def test_what_can_not_be_meant_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        declared(text)
