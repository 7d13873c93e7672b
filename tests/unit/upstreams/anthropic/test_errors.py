"""What a provider of the Messages API says when it says no."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_proxy.errors import GatewayError, PromptTooLong, UpstreamRefused
from ollama_proxy.upstreams.anthropic.errors import MOST_CHARS, decode_error_event, decode_refusal
from tests.rig.tables import each_row


def body(kind: str, text: str, **fields: Any) -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": text, **fields}}
    ).encode()


@each_row(
    ("status", "data", "given", "slug"),
    [
        (400, body("invalid_request_error", "max_tokens: too many"), 400, "invalid_request"),
        (
            400,
            body("invalid_request_error", "prompt is too long: 9 tokens"),
            400,
            "context_length_exceeded",
        ),
        (
            400,
            body("invalid_request_error", "Your credit balance is too low"),
            502,
            "upstream_error",
        ),
        (401, b"", 502, "upstream_error"),
        (403, body("permission_error", "no"), 502, "upstream_error"),
        (404, body("not_found_error", "model: claude-9"), 404, "model_not_found"),
        (429, body("rate_limit_error", "slow down"), 429, "invalid_request"),
        (529, body("overloaded_error", "busy"), 529, "upstream_refused"),
        (500, b"<html>", 502, "upstream_error"),
    ],
)
def test_status(status: int, data: bytes, given: int, slug: str) -> None:
    error = decode_refusal(status, data, 7, "claude-9")
    assert (error.status, error.slug) == (given, slug)


def test_a_model_that_is_not_there_is_named() -> None:
    assert (
        str(decode_refusal(404, body("not_found_error", "model: x"), None, "claude-9"))
        == "model 'claude-9' not found"
    )


def test_the_text_is_shortened_and_without_secrets() -> None:
    text = str(
        decode_refusal(
            400, body("invalid_request_error", "my-key " + "x" * 9999), None, "m", ["my-key"]
        )
    )
    assert len(text) <= MOST_CHARS
    assert "my-key" not in text


def test_a_spend_limit_is_final_and_a_rate_limit_is_not() -> None:
    slow = decode_refusal(429, body("rate_limit_error", "slow"), 3, "m")
    spent = decode_refusal(
        429,
        body("rate_limit_error", "spent", details={"error_code": "spend_limit_reached"}),
        3,
        "m",
    )
    assert isinstance(slow, UpstreamRefused) and isinstance(spent, UpstreamRefused)
    assert (slow.final, spent.final, slow.retry_after_s) == (False, True, 3)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("overloaded_error", "busy", 529),
        ("unheard_of", "?", 500),
        ("invalid_request_error", "prompt is too long", 400),
    ],
)
def test_events_have_the_status_of_their_type(kind: str, text: str, expected: int) -> None:
    error: GatewayError = decode_error_event(json.loads(body(kind, text)), "m")
    assert error.status == expected
    assert isinstance(error, PromptTooLong) == (expected == 400)
