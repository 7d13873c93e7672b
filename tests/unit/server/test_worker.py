"""Errors of HTTP itself, which no application has seen."""

from __future__ import annotations

import json

import pytest
from gunicorn.http import errors as http

from ollama_proxy.errors import BadRequest, Overloaded
from ollama_proxy.server.worker import answer, public_error


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (http.LimitRequestLine(1, 2), 414),
        (http.LimitRequestHeaders("x"), 431),
        (http.UnsupportedTransferCoding("x"), 501),
        (http.InvalidRequestLine("GET /?token=secret"), 400),
        (http.InvalidHeader("x"), 400),
        (RuntimeError("secret"), 500),
    ],
    ids=lambda value: type(value).__name__,
)
def test_status_without_a_quote(raised: Exception, status: int) -> None:
    error = public_error(raised)
    assert error.status == status
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("path", "field"), [("/api/chat", "error"), ("/v1/chat/completions", "error"), ("/v1/messages", "type")]
)
def test_answer_has_the_shape_of_the_path_and_closes_the_connection(path: str, field: str) -> None:
    head, _, body = answer(BadRequest("no"), path).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 400 Bad Request"
    assert {"Connection: close", "Cache-Control: no-store", f"Content-Length: {len(body)}"} <= set(lines)
    assert field in json.loads(body)


def test_a_full_worker_says_when_to_come_back() -> None:
    assert b"\r\nRetry-After: 1\r\n" in answer(Overloaded(retry_after_s=1), "/")
