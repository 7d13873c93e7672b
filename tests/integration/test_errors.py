"""Errors that only a process shows: what the HTTP server refuses before there is a request, and
failures of the gateway itself, provoked in an application with two broken routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig.deadline import wait_until
from tests.rig.errors import ANTHROPIC, NATIVE, OPENAI, assert_error
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.http_client import bearer, raw, request

TOKEN = "team-token-1"
BODY = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}

BROKEN = """
from ollama_proxy.server.startup import serve

app = serve()


@app.post("/api/broken", endpoint="broken_native")
@app.post("/v1/broken", endpoint="broken_openai")
@app.post("/anthropic/broken", endpoint="broken_anthropic")
def broken():
    from flask import request
    secret = request.headers["Authorization"]
    raise ValueError("canary-1 " + secret)


@app.post("/api/late")
def late():
    def body():
        yield b'{"n":1}\\n'
        raise ValueError("canary-2")
    return app.response_class(body(), content_type="application/x-ndjson")
"""


@pytest.fixture(scope="module")
def broken(
    shared_upstream: FaultUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway whose application has routes that fail."""
    directory: Path = tmp_path_factory.mktemp("broken")
    (directory / "broken_app.py").write_text(BROKEN, encoding="utf-8")
    config = {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": shared_upstream.url}}
    settings = PROJECT / "config" / "gunicorn.conf.py"
    with Gateway(
        config, app="broken_app:app", cwd=directory, gunicorn_config=settings, workers=1
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: gw\r\n\r\n", 400),
        (b"GET /api/" + b"x" * 9000 + b" HTTP/1.1\r\nHost: gw\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: gw\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: gw\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: gw\r\nX Y: z\r\n\r\n", 400),
    ],
    ids=[
        "no request",
        "unknown version",
        "long address",
        "long header",
        "many headers",
        "bad header name",
    ],
)
def test_errors_of_http_itself_are_json_too(broken: Gateway, data: bytes, status: int) -> None:
    head, _, body = raw(broken.port, data).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"application/json" in head and b"no-store" in head
    assert json.loads(body).keys() == {"error"}


def log_text(gateway: Gateway) -> str:
    files = [path.read_text(encoding="utf-8") for path in gateway.logs_directory.iterdir()]
    return "\n".join([*files, gateway.output()])


@pytest.mark.parametrize(
    ("path", "dialect"),
    [("/api/broken", NATIVE), ("/v1/broken", OPENAI), ("/anthropic/broken", ANTHROPIC)],
)
def test_500_tells_the_client_an_id_and_nothing_else(
    broken: Gateway, path: str, dialect: str
) -> None:
    answer = request(
        broken.url, "POST", path, BODY, {**bearer(TOKEN), "X-Request-Id": f"find-me-{dialect}"}
    )
    assert f"find-me-{dialect}" in assert_error(answer, dialect, 500)
    for secret in ("canary", TOKEN, "ValueError", "broken_app", ".py"):
        assert secret not in answer.text

    def logged() -> list[dict[str, Any]]:
        return [
            event for event in broken.log_lines("events") if event.get("id") == f"find-me-{dialect}"
        ]

    event = wait_until(logged)[0]
    assert (event["event"], event["traceback"][-1]) == ("internal_error", "ValueError")
    assert "canary" not in log_text(broken) and TOKEN not in log_text(broken)


def test_a_failure_in_the_middle_of_an_answer_is_never_a_clean_end(broken: Gateway) -> None:
    with broken.open("/api/late", BODY) as stream:
        assert stream.read_all().startswith(b'{"n":1}\n')
        assert not stream.complete
    wait_until(lambda: any(line["path"] == "/api/late" for line in broken.log_lines("access")))
    assert "canary" not in log_text(broken)


def test_the_gateway_goes_on_after_a_failure(broken: Gateway, upstream: FaultUpstream) -> None:
    broken.ask("/api/broken", BODY)
    assert broken.ask("/api/chat", {**BODY, "stream": False}).status == 200
