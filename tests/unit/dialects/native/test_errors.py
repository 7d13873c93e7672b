"""Ollama's error shapes, and what its command line gets."""

from __future__ import annotations

import json

import pytest

from ollama_proxy.dialects.native.errors import NativeErrors
from ollama_proxy.errors import MISSING_TOKEN_IN_ADDRESS, AuthError, BadRequest, GatewayError, MissingToken

ERRORS = NativeErrors()
CLI = {"HTTP_USER_AGENT": "ollama/0.24.0 (amd64 linux) Go/go1.25"}


def test_an_error_is_one_text() -> None:
    assert json.loads(ERRORS.render_error(BadRequest("no"), "r")) == {"error": "no"}


def test_in_a_stream_it_is_one_line() -> None:
    frame = ERRORS.render_error_frame(BadRequest("no\u2028\n"))
    assert (frame.count(b"\n"), frame[-1:], json.loads(frame)["error"]) == (1, b"\n", "no\u2028\n")


@pytest.mark.parametrize("error", [MissingToken(), AuthError("wrong")])
def test_the_command_line_gets_a_status_whose_text_it_prints(error: GatewayError) -> None:
    given, status = ERRORS.for_client(error, CLI)
    assert status == 403
    assert str(given) == (MISSING_TOKEN_IN_ADDRESS if isinstance(error, MissingToken) else "wrong")


@pytest.mark.parametrize("environ", [{}, {"HTTP_USER_AGENT": "ollama-python/0.6"}])
def test_all_others_get_the_status_as_it_is(environ: dict[str, str]) -> None:
    error = MissingToken()
    assert ERRORS.for_client(error, environ) == (error, 401)
    assert ERRORS.for_client(BadRequest("no"), CLI)[1] == 400
