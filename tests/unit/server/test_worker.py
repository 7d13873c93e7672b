"""Errors of HTTP itself, which no application has seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.config import Config

from ollama_proxy.dialects import DIALECTS
from ollama_proxy.errors import BadRequest, Overloaded
from ollama_proxy.server.worker import Worker


@pytest.fixture
def worker() -> Iterator[Any]:
    worker = Worker(1, 1, [], None, 30, Config(), None)
    yield worker
    worker.tmp.close()


@pytest.mark.parametrize(
    ("path", "field"), [("/api/chat", "error"), ("/v1/chat/completions", "error"), ("/v1/messages", "type")]
)
def test_error_has_the_shape_of_the_path_and_closes_the_connection(worker: Any, path: str, field: str) -> None:
    head, _, body = worker._encode_error(BadRequest("no"), {"PATH_INFO": path}).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 400 Bad Request"
    assert {"Connection: close", "Cache-Control: no-store", f"Content-Length: {len(body)}"} <= set(lines)
    assert field in json.loads(body)


def test_a_full_worker_says_when_to_come_back(worker: Any) -> None:
    assert b"\r\nRetry-After: 1\r\n" in worker._encode_error(Overloaded(retry_after_s=1), {"PATH_INFO": "/"})


def test_error_has_the_shape_of_the_dialects_of_the_application(worker: Any) -> None:
    worker._dialects = DIALECTS[-1:]
    body = worker._encode_error(BadRequest("no"), {"PATH_INFO": "/v1/messages"}).partition(b"\r\n\r\n")[2]
    assert json.loads(body) == {"error": "no"}
