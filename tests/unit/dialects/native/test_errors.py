"""Ollama's error shapes, and what its command line gets."""

from __future__ import annotations

import json

import pytest

from ollama_proxy.dialects.native.errors import NativeErrors
from ollama_proxy.errors import (
    MISSING_TOKEN_IN_ADDRESS,
    AuthError,
    GatewayError,
    MissingToken,
    NotFound,
)
from tests.rig.tables import each_row

ID = "req-1"


@pytest.mark.parametrize("text", ['quo"te', "世界", "line\nbreak", ""])
def test_native_error_is_always_a_text_on_one_line(text: str) -> None:
    error = GatewayError(text)
    assert json.loads(NativeErrors().render_error(error, ID)) == {
        "error": text or GatewayError.text
    }
    frame = NativeErrors().render_error_frame(error)
    assert frame.count(b"\n") == 1
    assert isinstance(json.loads(frame)["error"], str)


@each_row(
    ("error", "agent", "status", "text"),
    [
        (MissingToken(), "ollama/0.32.15 (amd64 linux)", 403, MISSING_TOKEN_IN_ADDRESS),
        (AuthError(), "ollama/0.32.15", 403, str(AuthError())),
        (NotFound("x"), "ollama/0.32.15", 404, "x"),
        (MissingToken(), "ollama-python/0.6", 401, str(MissingToken())),
        (MissingToken(), None, 401, str(MissingToken())),
    ],
)
def test_the_command_line_gets_texts_that_it_prints(
    error: GatewayError, agent: str | None, status: int, text: str
) -> None:
    shown, shown_status = NativeErrors().for_client(
        error, {"HTTP_USER_AGENT": agent} if agent else {}
    )
    assert (str(shown), shown_status) == (text, status)
