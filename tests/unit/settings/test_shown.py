"""Settings as people see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.policy import NOBODYS_HASH
from ollama_proxy.settings.formats import RedisUrl
from ollama_proxy.settings.schema import settings_from
from ollama_proxy.settings.shown import show_value

FILE = b"""\
auth: {generate_tokens: [{name: a, token: plain-token-1, expires: 2099-01-31, scopes: [read]}]}
models: {coder: {target: x, clamp: {num_ctx: 10}, system: {remove: [a, b]}}}
upstreams: [{name: box, base_url: "http://box:1", models: {m: {id: n, capabilities: [tools]}}}]
"""
SETTINGS = settings_from(FILE, Path("config.yaml"), {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (RedisUrl("redis://:secret@box:1"), "redis://********@box:1"),
        (
            SETTINGS.models["coder"],
            {"target": "x", "clamp": {"num_ctx": 10}, "system": {"remove": ["a", "b"]}},
        ),
        (
            SETTINGS.upstreams[0],
            {
                "name": "box",
                "base_url": "http://box:1",
                "models": {"m": {"id": "n", "capabilities": ["tools"]}},
            },
        ),
        ((1, frozenset({"b", "a"}), {"x": None}), [1, ["a", "b"], {"x": None}]),
    ],
)
def test_values_are_as_the_file_would_have_them(value: Any, expected: Any) -> None:
    assert show_value(value, with_defaults=False) == expected


def test_hash_of_a_password_is_masked() -> None:
    text = f"admin: {{password_hash: '{NOBODYS_HASH}'}}"
    settings = settings_from(text.encode(), Path("config.yaml"), {})
    assert (
        show_value(settings.admin)["password_hash"]
        == show_value(settings.admin.password_hash)
        == "********"
    )


def test_tokens_have_no_secret_and_sections_their_defaults() -> None:
    [token] = show_value(SETTINGS.auth.generate_tokens)
    assert (token["sha256"], token["expires"], token["scopes"]) == (
        "********",
        "2099-01-31",
        ["read"],
    )
    assert show_value(SETTINGS.models["coder"])["clamp"] == {
        "num_ctx": 10,
        "num_predict": None,
        "keep_alive": None,
    }
