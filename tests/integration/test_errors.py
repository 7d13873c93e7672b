"""Every error in the shape of its dialect, whoever makes it: gunicorn, the
gateway or an upstream."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig import fault_upstream as do
from tests.rig.checked import checked_gateway
from tests.rig.deadline import wait_until
from tests.rig.errors import ANTHROPIC, NATIVE, OPENAI, assert_error
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.http_client import Answer, bearer, raw, request

TOKEN = "team-token-1"
READER = "reader-token"
LIMIT = 64 * 1024
DIALECTS = (NATIVE, OPENAI, ANTHROPIC)
CHAT = {NATIVE: "/api/chat", OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}
BODY = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    config = {
        "auth": {
            "generate_tokens": [TOKEN, {"name": "reader", "token": READER, "scopes": ["read"]}]
        },
        "server": {"max_body": LIMIT},
        "timeouts": {"first_byte_s": 1, "connect_s": 1},
    }
    with checked_gateway(shared_upstream, TOKEN, **config) as running:
        yield running


def chat(
    gateway: Gateway, dialect: str, *, stream: bool = False, body: Any = None, token: str = TOKEN
) -> Answer:
    sent = {**BODY, "stream": stream} if body is None else body
    return gateway.ask(CHAT[dialect], sent, token=token)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_400_for_a_body_that_is_no_json(
    gateway: Gateway, upstream: FaultUpstream, dialect: str
) -> None:
    assert "not valid JSON" in assert_error(chat(gateway, dialect, body=b"{nope"), dialect, 400)
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


def test_400_names_the_field_to_openai_clients(gateway: Gateway) -> None:
    answer = chat(gateway, OPENAI, body={**BODY, "temperature": "hot"})
    assert "temperature" in assert_error(answer, OPENAI, 400)
    assert answer.json()["error"]["param"] == "temperature"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_401_without_a_token_says_so_in_both_languages(gateway: Gateway, dialect: str) -> None:
    answer = request(gateway.url, "POST", CHAT[dialect], BODY)
    text = assert_error(answer, dialect, 401)
    assert text.startswith("未提供认证token") and "no token" in text
    assert "未提供认证token".encode() in answer.body
    assert answer.headers.get("www-authenticate") == "Bearer"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_401_for_a_wrong_token_says_so_in_both_languages(gateway: Gateway, dialect: str) -> None:
    text = assert_error(chat(gateway, dialect, token="wrong"), dialect, 401)
    assert text.startswith("非授权访问") and "not valid" in text


def test_400_names_the_field_to_anthropic_clients(gateway: Gateway) -> None:
    answer = chat(gateway, ANTHROPIC, body={**BODY, "temperature": "hot"})
    assert "temperature" in assert_error(answer, ANTHROPIC, 400)


def test_401_has_the_code_that_openai_clients_know(gateway: Gateway) -> None:
    assert chat(gateway, OPENAI, token="wrong").json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_403_names_the_scope_that_is_missing(gateway: Gateway, dialect: str) -> None:
    assert "'generate'" in assert_error(chat(gateway, dialect, token=READER), dialect, 403)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/nope", NATIVE),
        ("/api/nope", NATIVE),
        ("/v1/nope", OPENAI),
        ("/v1", OPENAI),
        ("/v1/chat", OPENAI),
    ]
    + [
        ("/v1/messages/nope", ANTHROPIC),
        ("/anthropic/v1/nope", ANTHROPIC),
        ("/anthropic", ANTHROPIC),
    ]
    + [("/v1/responses/resp_1", OPENAI), ("/v1/conversations", OPENAI)],
)
def test_404_for_an_unknown_address_speaks_the_dialect_of_its_path(
    gateway: Gateway, path: str, dialect: str
) -> None:
    assert_error(gateway.ask(path), dialect, 404)
    assert_error(request(gateway.url, "GET", f"/k/{TOKEN}{path}"), dialect, 404)


def test_404_for_an_unknown_model_has_the_code_that_clients_match_on(gateway: Gateway) -> None:
    answer = gateway.ask("/v1/models/nope")
    assert_error(answer, OPENAI, 404)
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (
        "model_not_found",
        "model",
    )


def test_404_for_an_unknown_model_has_anthropics_shape_for_who_says_its_version(
    gateway: Gateway,
) -> None:
    headers = {**bearer(TOKEN), "anthropic-version": "2023-06-01"}
    assert "nope" in assert_error(
        request(gateway.url, "GET", "/v1/models/nope", headers=headers), ANTHROPIC, 404
    )


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_404_of_the_upstream_keeps_status_and_text(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, stream: bool
) -> None:
    upstream.script("/api/chat", [do.Json({"error": "model 'm' not found"}, 404)])
    answer = chat(gateway, dialect, stream=stream)
    assert assert_error_from_upstream(answer, dialect, 404) == "model 'm' not found"


def assert_error_from_upstream(answer: Answer, dialect: str, status: int) -> str:
    """As `assert_error`, for an answer that is neither a stream nor buffered like one."""
    assert answer.headers.get("x-accel-buffering") is None
    return assert_error(answer, dialect, status)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE"])
def test_405_says_what_the_address_takes(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, method: str
) -> None:
    answer = gateway.ask(CHAT[dialect], method=method)
    assert_error(answer, dialect, 405)
    assert set((answer.headers.get("allow") or "").split(", ")) == {"OPTIONS", "POST"}
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_options_says_it_as_well(gateway: Gateway, dialect: str) -> None:
    answer = request(gateway.url, "OPTIONS", CHAT[dialect])
    assert (answer.status, answer.body) == (204, b"")
    assert set((answer.headers.get("allow") or "").split(", ")) == {"OPTIONS", "POST"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_413_for_a_declared_length_over_the_limit(
    gateway: Gateway, upstream: FaultUpstream, dialect: str
) -> None:
    answer = chat(gateway, dialect, body=b" " * (LIMIT + 1))
    assert str(LIMIT) in assert_error(answer, dialect, 413)
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_413_for_a_chunked_body_over_the_limit(
    gateway: Gateway, upstream: FaultUpstream, dialect: str
) -> None:
    padded = json.dumps(BODY).encode().ljust(LIMIT + 1)
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(padded), padded)
    headers = {**bearer(TOKEN), "Transfer-Encoding": "chunked"}
    assert_error(request(gateway.url, "POST", CHAT[dialect], framed, headers), dialect, 413)
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_a_body_of_exactly_the_limit_is_taken_whole(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, framing: str
) -> None:
    padded = json.dumps({**BODY, "stream": False}).encode().ljust(LIMIT)
    headers = bearer(TOKEN)
    if framing == "chunked":
        padded = b"".join(
            b"%x\r\n%b\r\n" % (1024, padded[at : at + 1024]) for at in range(0, LIMIT, 1024)
        )
        padded, headers = padded + b"0\r\n\r\n", {**headers, "Transfer-Encoding": "chunked"}
    assert request(gateway.url, "POST", CHAT[dialect], padded, headers).status == 200
    assert upstream.wait_for_request(1, "/api/chat").json()["model"] == "m"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "header", [("Content-Type", "multipart/form-data; boundary=x"), ("Content-Encoding", "br")]
)
def test_415_for_what_cannot_be_json(
    gateway: Gateway, dialect: str, header: tuple[str, str]
) -> None:
    answer = request(
        gateway.url, "POST", CHAT[dialect], b"--x\r\n", {**bearer(TOKEN), header[0]: header[1]}
    )
    assert_error(answer, dialect, 415)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_415_for_ten_thousand_parts_comes_at_once(gateway: Gateway, dialect: str) -> None:
    headers = {**bearer(TOKEN), "Content-Type": "multipart/form-data; boundary=x"}
    began = time.monotonic()
    assert_error(
        request(gateway.url, "POST", CHAT[dialect], b"--x\r\n\r\n" * 9000, headers), dialect, 415
    )
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_429_of_the_upstream_is_passed_on_with_its_patience(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, stream: bool
) -> None:
    upstream.script("/api/chat", [do.Json({"error": "slow down"}, 429, {"Retry-After": "7"})])
    answer = chat(gateway, dialect, stream=stream)
    assert assert_error_from_upstream(answer, dialect, 429) == "slow down"
    assert answer.headers.get("retry-after") == "7"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [400, 500])
def test_other_errors_of_the_upstream_keep_status_and_text(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, status: int
) -> None:
    upstream.script("/api/chat", [do.Json({"error": "it broke"}, status)])
    assert assert_error_from_upstream(chat(gateway, dialect), dialect, status) == "it broke"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [401, 402, 407])
def test_502_when_the_upstream_wants_to_be_signed_in_to(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, stream: bool, status: int
) -> None:
    said = {"error": "unauthorized", "signin_url": "https://ollama.com/connect"}
    upstream.script("/api/chat", [do.Json(said, status, {"WWW-Authenticate": "Basic"})])
    answer = chat(gateway, dialect, stream=stream)
    assert "signin" not in assert_error_from_upstream(answer, dialect, 502)
    assert answer.headers.get("www-authenticate") is None


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "script",
    [
        [do.Whole(b"<html>It works!</html>", 200, {"Content-Type": "text/html"})],
        [do.Whole(b"<html>Bad gateway</html>", 502, {"Content-Type": "text/html"})],
        [do.Whole(b"", 302, {"Location": "http://127.0.0.1:1/"})],
        [do.Send(b"garbage\r\n\r\n"), do.Cut()],
        [do.Cut()],
    ],
    ids=["page", "page of a proxy", "redirect", "garbage", "nothing"],
)
def test_502_for_answers_that_cannot_be_used(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, script: do.Script
) -> None:
    upstream.script("/api/chat", script)
    assert_error_from_upstream(chat(gateway, dialect), dialect, 502)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_503_of_a_busy_upstream_says_when_to_come_back(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, stream: bool
) -> None:
    upstream.script("/api/chat", [do.Json({"error": BUSY}, 503)])
    answer = chat(gateway, dialect, stream=stream)
    assert assert_error_from_upstream(answer, dialect, 503) == BUSY
    assert int(answer.headers.get("retry-after") or "0") >= 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_503_when_the_upstream_is_down_says_so_in_both_languages(
    gateway: Gateway, upstream: FaultUpstream, dialect: str, stream: bool
) -> None:
    upstream.refuse()
    try:
        text = assert_error_from_upstream(chat(gateway, dialect, stream=stream), dialect, 503)
    finally:
        upstream.restart()
    assert text.startswith("Failed to connect to Ollama service") and "无法连接" in text
    assert str(upstream.port) not in text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_504_when_the_upstream_says_nothing(
    gateway: Gateway, upstream: FaultUpstream, dialect: str
) -> None:
    upstream.script("/api/chat", [do.WaitForPeerClose(5)])
    assert_error_from_upstream(chat(gateway, dialect), dialect, 504)


# What gunicorn refuses before there is a request.


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
def test_errors_of_http_itself_are_json_too(gateway: Gateway, data: bytes, status: int) -> None:
    head, _, body = raw(gateway.port, data).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"application/json" in head and b"no-store" in head
    assert json.loads(body).keys() == {"error"}


# Failures of the gateway itself, provoked in an application with two broken routes.

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
