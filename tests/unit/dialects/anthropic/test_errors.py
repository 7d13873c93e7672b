"""Anthropic's error shapes: the type that the status stands for, the headers, and the
last event of a stream."""

from __future__ import annotations

import json

import pytest

from ollama_proxy.dialects.anthropic.errors import TOO_LONG, VERSION, AnthropicErrors
from ollama_proxy.errors import (
    AuthError,
    BadRequest,
    BodyTooLarge,
    Forbidden,
    GatewayError,
    LimitError,
    NotFound,
    Overloaded,
    PromptTooLong,
    UpstreamTimeout,
)
from tests.rig.tables import each_row

ERRORS = AnthropicErrors()


@each_row(
    ("error", "kind"),
    [
        (BadRequest(), "invalid_request_error"),
        (AuthError(), "authentication_error"),
        (Forbidden(), "permission_error"),
        (NotFound(), "not_found_error"),
        (BodyTooLarge(), "request_too_large"),
        (LimitError(), "rate_limit_error"),
        (Overloaded(), "overloaded_error"),
        (UpstreamTimeout(), "timeout_error"),
        (GatewayError(), "api_error"),
    ],
)
def test_type_follows_the_status(error: GatewayError, kind: str) -> None:
    document = json.loads(ERRORS.render_error(error, "req-1"))
    assert document == {
        "type": "error",
        "error": {"type": kind, "message": str(error)},
        "request_id": "req-1",
    }


def test_a_prompt_that_is_too_long_starts_with_the_words_that_clients_look_for_and_only_once() -> (
    None
):
    for text in ("413 tokens", f"{TOO_LONG}: 413 tokens"):
        message = json.loads(ERRORS.render_error(PromptTooLong(text), "r"))["error"]["message"]
        assert message.startswith(f"{TOO_LONG}: 413 tokens")


def test_a_stored_thread_is_refused_with_the_code_that_makes_tool_runners_send_the_history() -> (
    None
):
    error = json.loads(ERRORS.render_error(BadRequest("no", param="thread"), "r"))["error"]
    assert error["details"]["error_code"] == "thread_unsupported_request"


@pytest.mark.parametrize(
    ("sent", "returned"),
    [
        ("2026-01-01", "2026-01-01"),
        ("", VERSION),
        ("a\r\nSet-Cookie: b", VERSION),
        ("x" * 65, VERSION),
    ],
)
def test_version_header_is_returned_if_it_is_harmless(sent: str, returned: str) -> None:
    fields = dict(ERRORS.head_fields("req-1", {"HTTP_ANTHROPIC_VERSION": sent}))
    assert fields == {"request-id": "req-1", "anthropic-version": returned}


def test_error_in_a_stream_is_one_event() -> None:
    frame = ERRORS.render_error_frame(BadRequest("no"))
    assert frame.startswith(b"event: error\ndata: ")
    assert frame.endswith(b"\n\n")
    assert json.loads(frame.split(b"data: ")[1])["error"]["message"] == "no"
