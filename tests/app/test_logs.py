"""What is written down: one line per request, every failure that an operator must know,
and no secret anywhere."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.golden.face import local_gateway
from tests.rig import fault_upstream as do
from tests.rig import native_chat
from tests.rig.deadline import wait_until
from tests.rig.errors import dialect_of
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

TOKEN, WRONG = "canary-token-1a2b3c", "canary-wrong-9z8y7x"
PROMPT, SPOKEN = "canary-prompt-4d5e6f", "canary-answer-7g8h9i"
READER = "canary-reader-5m6n7o"
PAGE, USER_HEADER = "canary-page-8p9q1r", "X-OpenWebUI-User-Email"
FIELDS = {
    *(
        "time",
        "id",
        "client",
        "token",
        "method",
        "path",
        "dialect",
        "model",
        "upstream",
        "status",
        "stream",
        "bytes",
    ),
    *("clamped", "truncated", "attempts", "estimated"),
    *("prompt_eval_count", "eval_count", "first_byte_ms", "total_ms", "state", "error"),
}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
GOOD = native_chat.piece(SPOKEN, model=MODEL)
DONE = native_chat.done(model=MODEL)
CHATS = ("/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses")


def asked(path: str, text: str, **fields: Any) -> dict[str, Any]:
    """A request that says this, in the form of its path."""
    if path == "/v1/responses":
        return {"model": MODEL, "input": text, **fields}
    return {
        "model": MODEL,
        "max_tokens": 99,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    config = {
        "auth": {
            "generate_tokens": [
                {"name": "web-team", "sha256": digest(TOKEN)},
                {"name": "reader", "sha256": digest(READER), "scopes": ["read"]},
                {"name": "page", "sha256": digest(PAGE), "users": {"header": USER_HEADER}},
            ]
        },
        "server": {"max_body": "1MiB"},
        "timeouts": {"first_byte_s": 0.3, "idle_s": 0.3},
        "logging": {"level": "DEBUG"},
    }
    with local_gateway(shared_upstream, **config) as running:
        yield running


def lines_of(gateway: LocalGateway, name: str, identity: str) -> list[dict[str, Any]]:
    return [line for line in gateway.log_lines(name) if line.get("id") == identity]


def line_of(gateway: LocalGateway, identity: str, name: str = "access") -> dict[str, Any]:
    """The line of a request; it is written a moment after the answer."""
    found = wait_until(
        lambda: lines_of(gateway, name, identity), 5, f"no line for {identity} in {name}.log"
    )
    return found[0]


def ask(
    gateway: LocalGateway,
    identity: str,
    method: str,
    path: str,
    body: Any = None,
    token: str | None = TOKEN,
) -> Answer:
    headers = {"X-Request-Id": identity, **(bearer(token) if token else {})}
    return gateway.request(method, path, body, headers)


def excerpt(line: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in expected}


# The access log.


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_line_says_who_asked_what_and_how_it_ended(
    gateway: LocalGateway, upstream: FaultUpstream, path: str, stream: bool
) -> None:
    identity = f"full-{stream}-{path.replace('/', '.')}"
    answer = ask(gateway, identity, "POST", path, asked(path, PROMPT, stream=stream))
    line = line_of(gateway, identity)
    expected = {
        "client": "127.0.0.1",
        "token": "web-team",
        "method": "POST",
        "path": path,
        "dialect": dialect_of(path),
        "model": MODEL,
        "upstream": "ollama",
        "status": 200,
        "stream": stream,
        "bytes": len(answer.body),
        "prompt_eval_count": 7,
        "eval_count": 3,
        "state": "ok",
        "error": None,
    }
    assert line.keys() >= FIELDS
    assert excerpt(line, expected) == expected
    assert 0 < line["first_byte_ms"] <= line["total_ms"] < 5000


@pytest.mark.parametrize("path", [*CHATS, "/v1/embeddings", "/api/embed"])
def test_the_user_behind_a_token_is_in_the_line_and_nowhere_else(
    gateway: LocalGateway, upstream: FaultUpstream, path: str
) -> None:
    identity = f"user-{path.replace('/', '.')}"
    headers = {"X-Request-Id": identity, USER_HEADER: "%E5%BC%A0%40example.org%0A", **bearer(PAGE)}
    body = {"model": MODEL, "input": "x"} if "embed" in path else asked(path, PROMPT, stream=False)
    upstream.script("/api/embed", [do.Json({"embeddings": [[1.0]]})])
    answer = gateway.request("POST", path, body, headers)
    line = line_of(gateway, identity)
    assert (answer.status, line["token"], line["user"]) == (200, "page", "张@example.org")
    assert all("example.org" not in f"{seen.headers}{seen.body!r}" for seen in upstream.requests)
    assert "example.org" not in f"{answer.headers}{answer.text}"


BOTH = {"safety_identifier": "hash-1", "user": "ann"}
NAMED: list[tuple[str, dict[str, str], dict[str, str], str | None]] = [
    (PAGE, {USER_HEADER: "bob"}, BOTH, "bob"),
    (PAGE, {USER_HEADER: "%20"}, BOTH, "hash-1"),
    (PAGE, {}, {"user": "ann"}, "ann"),
    (PAGE, {"X-User": "bob"}, {}, None),
    (TOKEN, {USER_HEADER: "bob"}, {}, None),
    (TOKEN, {USER_HEADER: "bob"}, BOTH, "hash-1"),
]


@pytest.mark.parametrize(("token", "headers", "fields", "user"), NAMED)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_header_names_the_user_only_of_a_token_that_says_so(
    gateway: LocalGateway,
    path: str,
    token: str,
    headers: dict[str, str],
    fields: dict[str, str],
    user: str | None,
) -> None:
    identity = f"named-{secrets.token_hex(8)}"
    body = asked(path, PROMPT, stream=False, **fields)
    answer = gateway.request(
        "POST", path, body, {"X-Request-Id": identity, **headers, **bearer(token)}
    )
    assert (answer.status, line_of(gateway, identity)["user"]) == (200, user)


REFUSALS: list[tuple[str, str, str, Any, str | None, dict[str, Any]]] = [
    (
        "r-401",
        "GET",
        "/api/tags",
        None,
        None,
        {"status": 401, "error": "missing_token", "token": None},
    ),
    (
        "r-wrong",
        "GET",
        "/v1/models",
        None,
        WRONG,
        {"status": 401, "error": "invalid_token", "dialect": "openai"},
    ),
    (
        "r-403",
        "POST",
        "/api/chat",
        CHAT,
        READER,
        {"status": 403, "error": "not_allowed", "token": "reader"},
    ),
    (
        "r-404",
        "GET",
        "/nope",
        None,
        TOKEN,
        {"status": 404, "error": "not_found", "token": "web-team"},
    ),
    ("r-405", "PUT", "/api/chat", None, TOKEN, {"status": 405, "error": "method_not_allowed"}),
    (
        "r-400",
        "POST",
        "/api/chat",
        b"{",
        TOKEN,
        {"status": 400, "error": "invalid_request", "upstream": None},
    ),
    (
        "r-413",
        "POST",
        "/api/chat",
        b" " * (1 << 20) + b"{",
        TOKEN,
        {"status": 413, "error": "body_too_large"},
    ),
]


@pytest.mark.parametrize(("identity", "method", "path", "body", "token", "expected"), REFUSALS)
def test_refused_requests_have_their_line_too(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    identity: str,
    method: str,
    path: str,
    body: Any,
    token: str | None,
    expected: dict[str, Any],
) -> None:
    answer = ask(gateway, identity, method, path, body, token)
    line = line_of(gateway, identity)
    expected = {
        **expected,
        "state": "refused",
        "path": path,
        "method": method,
        "bytes": len(answer.body),
    }
    assert excerpt(line, expected) == expected


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_requests_without_an_answer_of_their_own_have_their_line(
    gateway: LocalGateway, upstream: FaultUpstream, method: str
) -> None:
    upstream.script("/api/tags", [do.Json({"models": []})])
    ask(gateway, f"bare-{method}", method, "/api/tags")
    assert excerpt(line_of(gateway, f"bare-{method}"), {"method": 0, "state": 0}) == {
        "method": method,
        "state": "ok",
    }


@pytest.mark.parametrize(
    ("script", "status", "state", "error"),
    [
        ([do.Json({"error": "model not found"}, 404)], 404, None, None),
        (
            [do.Whole(b"<html>", 200, {"Content-Type": "text/html"})],
            502,
            "upstream_error",
            "upstream_error",
        ),
        ([do.Cut()], 502, "upstream_error", "upstream_cut"),
        ([do.WaitForPeerClose(5)], 504, "timeout", "upstream_timeout"),
        ([do.Lines([GOOD]), do.Cut()], 200, "upstream_error", "upstream_cut"),
        ([do.Lines([GOOD]), do.WaitForPeerClose(5)], 200, "timeout", "upstream_timeout"),
        ([do.Lines([GOOD, {"error": "boom"}])], 200, "upstream_error", None),
    ],
    ids=["404", "page", "cut", "silence", "cut stream", "silent stream", "error line"],
)
@pytest.mark.parametrize("path", CHATS)
def test_failures_of_the_upstream_are_in_the_line_and_in_the_events(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    script: do.Script,
    status: int,
    state: str | None,
    error: str | None,
    path: str,
) -> None:
    upstream.script("/api/chat", script)
    identity = (
        ask(gateway, "", "POST", path, asked(path, PROMPT, stream=True)).headers.get("x-request-id")
        or ""
    )
    line = line_of(gateway, identity)
    assert (line["status"], line["upstream"]) == (status, "ollama")
    assert state is None or line["state"] == state
    assert error is None or line["error"] == error
    if error is not None:
        event = line_of(gateway, identity, "events")
        assert (event["event"], event["upstream"], event["error"]) == (
            "upstream_error",
            "ollama",
            error,
        )


def test_an_upstream_that_is_down_is_in_the_events(upstream: FaultUpstream) -> None:
    auth = {"generate_tokens": [TOKEN]}
    with local_gateway(upstream, over_sockets=True, auth=auth) as gateway:
        upstream.refuse()
        assert ask(gateway, "down-1", "POST", "/api/chat", CHAT).status == 503
        event = line_of(gateway, "down-1", "events")
    assert (event["event"], event["error"], event["status"]) == (
        "upstream_error",
        "upstream_unreachable",
        503,
    )
    assert "ConnectionRefusedError" in event["detail"]


@pytest.mark.parametrize(
    ("token", "error", "status"),
    [(None, "missing_token", 401), (WRONG, "invalid_token", 401), (READER, "not_allowed", 403)],
)
def test_failures_of_authentication_are_events(
    gateway: LocalGateway, token: str | None, error: str, status: int
) -> None:
    identity = f"auth-{error}"
    assert ask(gateway, identity, "POST", "/api/chat", CHAT, token).status == status
    event = line_of(gateway, identity, "events")
    expected = {
        "event": "auth_failure",
        "client": "127.0.0.1",
        "path": "/api/chat",
        "error": error,
        "level": "WARNING",
    }
    assert excerpt(event, expected) == expected


def test_a_client_that_leaves_is_not_counted_as_served(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [do.Lines([GOOD]), do.WaitForPeerClose(5)])
    headers = {**bearer(TOKEN), "X-Request-Id": "left-1"}
    with gateway.open_stream("POST", "/api/chat", CHAT, headers) as stream:
        next(stream.lines())
    assert line_of(gateway, "left-1")["state"] == "client_gone"


def test_every_request_has_exactly_one_line(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    identities = [f"once-{number}" for number in range(60)]
    ways = [
        ("GET", "/api/tags", None),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
        ("GET", "/x", None),
    ]
    for number, identity in enumerate(identities):
        ask(gateway, identity, *ways[number % len(ways)])

    def counts() -> list[int]:
        seen = [line["id"] for line in gateway.log_lines("access")]
        return [seen.count(identity) for identity in identities]

    wait_until(lambda: min(counts()) >= 1, 5)
    ask(gateway, "once-last", "GET", "/api/tags")
    line_of(gateway, "once-last")
    assert counts() == [1] * len(identities)


def test_the_same_id_twice_is_two_lines(gateway: LocalGateway) -> None:
    for _ in range(2):
        ask(gateway, "same-id", "GET", "/api/tags")
    wait_until(lambda: len(lines_of(gateway, "access", "same-id")) == 2)


@pytest.mark.parametrize("length", [600, 4000, 7900])
@pytest.mark.parametrize("token", [TOKEN, WRONG])
def test_a_long_address_leaves_valid_lines(gateway: LocalGateway, length: int, token: str) -> None:
    identity = f"long-{length}-{token == WRONG}"
    ask(gateway, identity, "GET", "/" + "x" * length, token=token)
    line_of(gateway, identity)
    assert all(
        isinstance(line, dict) for name in ("access", "events") for line in gateway.log_lines(name)
    )


@pytest.mark.parametrize("trusted", [True, False])
def test_forwarded_addresses_are_believed_from_trusted_proxies_alone(
    upstream: FaultUpstream, trusted: bool
) -> None:
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "service": {"base_url": upstream.url},
        "server": {"trusted_proxies": ["127.0.0.0/8"] if trusted else ["192.0.2.1"]},
    }
    with LocalGateway(config) as running:
        for number, said in enumerate(
            ("203.0.113.9", "6.6.6.6, 203.0.113.9", "203.0.113.9, 127.0.0.5", "junk")
        ):
            headers = {
                **bearer(TOKEN),
                "X-Forwarded-For": said,
                "X-Real-IP": "6.6.6.6",
                "X-Request-Id": f"f-{number}",
            }
            running.request("GET", "/api/tags", headers=headers)
        seen = [line_of(running, f"f-{number}")["client"] for number in range(4)]
        assert seen == (["203.0.113.9"] * 3 + ["127.0.0.1"] if trusted else ["127.0.0.1"] * 4)


# Secrets; rows S12 and S13 look for them wherever they could come in.


def test_the_path_of_a_line_shows_what_was_asked_for_without_the_token(
    gateway: LocalGateway,
) -> None:
    gateway.request("GET", f"/k/{TOKEN}/api/tags?x={TOKEN}", headers={"X-Request-Id": "redacted"})
    assert excerpt(line_of(gateway, "redacted"), {"path": 0, "token": 0}) == {
        "path": "/api/tags",
        "token": "web-team",
    }
