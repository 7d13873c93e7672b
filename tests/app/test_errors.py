"""Every error in the shape of its dialect, whether the gateway makes it or an
upstream."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import fault_upstream as do
from tests.rig.errors import ANTHROPIC, NATIVE, OPENAI, assert_error
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

TOKEN = "team-token-1"
READER = "reader-token"
LIMIT = 64 * 1024
DIALECTS = (NATIVE, OPENAI, ANTHROPIC)
CHAT = {NATIVE: "/api/chat", OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}
BODY = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    config = {
        "auth": {
            "generate_tokens": [TOKEN, {"name": "reader", "token": READER, "scopes": ["read"]}]
        },
        "server": {"max_body": LIMIT},
        "timeouts": {"first_byte_s": 0.3, "connect_s": 1},
    }
    # Over sockets, because one answer is no HTTP.
    with LocalGateway(
        config | {"service": {"base_url": shared_upstream.url}}, over_sockets=True
    ) as running:
        yield running


def chat(
    gateway: LocalGateway,
    dialect: str,
    *,
    stream: bool = False,
    body: Any = None,
    token: str = TOKEN,
) -> Answer:
    sent = {**BODY, "stream": stream} if body is None else body
    return gateway.ask(CHAT[dialect], sent, token=token)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_400_for_a_body_that_is_no_json(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str
) -> None:
    assert "not valid JSON" in assert_error(chat(gateway, dialect, body=b"{nope"), dialect, 400)
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


def test_400_names_the_field_to_openai_clients(gateway: LocalGateway) -> None:
    answer = chat(gateway, OPENAI, body={**BODY, "temperature": "hot"})
    assert "temperature" in assert_error(answer, OPENAI, 400)
    assert answer.json()["error"]["param"] == "temperature"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_401_without_a_token_says_so_in_both_languages(gateway: LocalGateway, dialect: str) -> None:
    answer = gateway.request("POST", CHAT[dialect], BODY)
    text = assert_error(answer, dialect, 401)
    assert text.startswith("未提供认证token") and "no token" in text
    assert "未提供认证token".encode() in answer.body
    assert answer.headers.get("www-authenticate") == "Bearer"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_401_for_a_wrong_token_says_so_in_both_languages(
    gateway: LocalGateway, dialect: str
) -> None:
    text = assert_error(chat(gateway, dialect, token="wrong"), dialect, 401)
    assert text.startswith("非授权访问") and "not valid" in text


def test_400_names_the_field_to_anthropic_clients(gateway: LocalGateway) -> None:
    answer = chat(gateway, ANTHROPIC, body={**BODY, "temperature": "hot"})
    assert "temperature" in assert_error(answer, ANTHROPIC, 400)


def test_401_has_the_code_that_openai_clients_know(gateway: LocalGateway) -> None:
    assert chat(gateway, OPENAI, token="wrong").json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_403_names_the_scope_that_is_missing(gateway: LocalGateway, dialect: str) -> None:
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
    gateway: LocalGateway, path: str, dialect: str
) -> None:
    assert_error(gateway.ask(path), dialect, 404)
    assert_error(gateway.request("GET", f"/k/{TOKEN}{path}"), dialect, 404)


def test_404_for_an_unknown_model_has_the_code_that_clients_match_on(gateway: LocalGateway) -> None:
    answer = gateway.ask("/v1/models/nope")
    assert_error(answer, OPENAI, 404)
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (
        "model_not_found",
        "model",
    )


def test_404_for_an_unknown_model_has_anthropics_shape_for_who_says_its_version(
    gateway: LocalGateway,
) -> None:
    headers = {**bearer(TOKEN), "anthropic-version": "2023-06-01"}
    assert "nope" in assert_error(
        gateway.request("GET", "/v1/models/nope", headers=headers), ANTHROPIC, 404
    )


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_404_of_the_upstream_keeps_status_and_text(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str, stream: bool
) -> None:
    upstream.script("/api/chat", [do.Json({"error": "model 'm' not found"}, 404)])
    answer = chat(gateway, dialect, stream=stream)
    assert assert_error_from_upstream(answer, dialect, 404) == "model 'm' not found"


def assert_error_from_upstream(answer: Answer, dialect: str, status: int) -> str:
    """As `assert_error`, for an answer that is neither a stream nor buffered like one."""
    assert answer.headers.get("x-accel-buffering") is None
    return assert_error(answer, dialect, status)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_405_says_what_the_address_takes(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str
) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE"):
        answer = gateway.ask(CHAT[dialect], method=method)
        assert_error(answer, dialect, 405)
        assert set((answer.headers.get("allow") or "").split(", ")) == {"OPTIONS", "POST"}, method
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_options_says_it_as_well(gateway: LocalGateway, dialect: str) -> None:
    answer = gateway.request("OPTIONS", CHAT[dialect])
    assert (answer.status, answer.body) == (204, b"")
    assert set((answer.headers.get("allow") or "").split(", ")) == {"OPTIONS", "POST"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_413_for_a_declared_length_over_the_limit(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str
) -> None:
    answer = chat(gateway, dialect, body=b" " * (LIMIT + 1))
    assert str(LIMIT) in assert_error(answer, dialect, 413)
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_413_for_a_chunked_body_over_the_limit(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str
) -> None:
    padded = json.dumps(BODY).encode().ljust(LIMIT + 1)
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(padded), padded)
    headers = {**bearer(TOKEN), "Transfer-Encoding": "chunked"}
    assert_error(gateway.request("POST", CHAT[dialect], framed, headers), dialect, 413)
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_a_body_of_exactly_the_limit_is_taken_whole(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str, framing: str
) -> None:
    padded = json.dumps({**BODY, "stream": False}).encode().ljust(LIMIT)
    headers = bearer(TOKEN)
    if framing == "chunked":
        padded = b"".join(
            b"%x\r\n%b\r\n" % (1024, padded[at : at + 1024]) for at in range(0, LIMIT, 1024)
        )
        padded, headers = padded + b"0\r\n\r\n", {**headers, "Transfer-Encoding": "chunked"}
    assert gateway.request("POST", CHAT[dialect], padded, headers).status == 200
    assert upstream.wait_for_request(1, "/api/chat").json()["model"] == "m"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "header", [("Content-Type", "multipart/form-data; boundary=x"), ("Content-Encoding", "br")]
)
def test_415_for_what_cannot_be_json(
    gateway: LocalGateway, dialect: str, header: tuple[str, str]
) -> None:
    answer = gateway.request(
        "POST", CHAT[dialect], b"--x\r\n", {**bearer(TOKEN), header[0]: header[1]}
    )
    assert_error(answer, dialect, 415)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_415_for_ten_thousand_parts_comes_at_once(gateway: LocalGateway, dialect: str) -> None:
    headers = {**bearer(TOKEN), "Content-Type": "multipart/form-data; boundary=x"}
    began = time.process_time()
    assert_error(
        gateway.request("POST", CHAT[dialect], b"--x\r\n\r\n" * 9000, headers), dialect, 415
    )
    assert time.process_time() - began < 3


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_429_of_the_upstream_is_passed_on_with_its_patience(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str, stream: bool
) -> None:
    upstream.script("/api/chat", [do.Json({"error": "slow down"}, 429, {"Retry-After": "7"})])
    answer = chat(gateway, dialect, stream=stream)
    assert assert_error_from_upstream(answer, dialect, 429) == "slow down"
    assert answer.headers.get("retry-after") == "7"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [400, 500])
def test_other_errors_of_the_upstream_keep_status_and_text(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str, status: int
) -> None:
    upstream.script("/api/chat", [do.Json({"error": "it broke"}, status)])
    assert assert_error_from_upstream(chat(gateway, dialect), dialect, status) == "it broke"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("status", "stream"), [(401, True), (401, False), (402, False), (407, False)]
)
def test_502_when_the_upstream_wants_to_be_signed_in_to(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str, stream: bool, status: int
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
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str, script: do.Script
) -> None:
    upstream.script("/api/chat", script)
    assert_error_from_upstream(chat(gateway, dialect), dialect, 502)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_503_of_a_busy_upstream_says_when_to_come_back(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str, stream: bool
) -> None:
    upstream.script("/api/chat", [do.Json({"error": BUSY}, 503)])
    answer = chat(gateway, dialect, stream=stream)
    assert assert_error_from_upstream(answer, dialect, 503) == BUSY
    assert int(answer.headers.get("retry-after") or "0") >= 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_503_when_the_upstream_is_down_says_so_in_both_languages(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str, stream: bool
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
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str
) -> None:
    upstream.script("/api/chat", [do.WaitForPeerClose(5)])
    assert_error_from_upstream(chat(gateway, dialect), dialect, 504)
