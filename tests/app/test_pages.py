"""Web pages as callers: refused before anything happens if there are no tokens, or their
origin is not allowed. Behind nginx: tests/integration/test_pages.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.rig.calls import DIGEST, TOKEN, config
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

PAGE, EVIL = "https://chat.example", "https://evil.example"
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
    "max_tokens": 9,
}
PATHS: list[tuple[str, str, Any]] = [
    ("POST", "/api/chat", CHAT),
    ("POST", "/api/generate", {"model": MODEL, "prompt": "hi", "stream": False}),
    ("POST", "/api/pull", {"model": MODEL}),
    ("POST", "/api/create", {"model": "new", "from": MODEL}),
    ("POST", "/api/copy", {"source": MODEL, "destination": "b"}),
    ("DELETE", "/api/delete", {"model": MODEL}),
    ("POST", f"/api/blobs/{DIGEST}", "x"),
    ("GET", "/api/tags", None),
    ("GET", "/api/version", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/embeddings", {"model": MODEL, "input": "hi"}),
    ("POST", "/v1/messages", CHAT),
    ("GET", "/v1/models", None),
    ("GET", "/", None),
    ("GET", "/health", None),
    ("GET", "/readyz", None),
]
FOREIGN = [
    EVIL,
    "null",
    "file://",
    "https://chat.example.evil",
    "http://localhost:3000",
    "http://127.0.0.1",
]
#: What a page may send to another site without a preflight.
SIMPLE_TYPES = [
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
]


@pytest.fixture(scope="module")
def shared_listed(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    origins = {"origins": [PAGE, "app://obsidian.md"]}
    with LocalGateway(config(shared_upstream.url, cors=origins)) as running:
        yield running


@pytest.fixture
def listed(shared_listed: LocalGateway, upstream: FaultUpstream) -> LocalGateway:
    """A gateway with tokens for one page, and for a desktop program."""
    return shared_listed


@pytest.fixture(scope="module")
def shared_tokenless(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    settings = {"auth": {"enabled": False}, "service": {"base_url": shared_upstream.url}}
    with LocalGateway(settings, environ={"HOST": "127.0.0.1"}) as running:
        yield running


@pytest.fixture
def tokenless(shared_tokenless: LocalGateway, upstream: FaultUpstream) -> LocalGateway:
    """A gateway that requires no token."""
    return shared_tokenless


def request(
    gateway: LocalGateway,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request, to 127.0.0.1:8080 unless the headers name another host."""
    return gateway.request(method, path, body, {"Host": "127.0.0.1:8080", **(headers or {})})


def allowances(answer: Answer) -> list[str]:
    return [name for name, _ in answer.headers if name.lower().startswith("access-control-")]


def asked(upstream: FaultUpstream) -> list[str]:
    """What reached the upstream, beside the health checks."""
    return [
        seen.path
        for seen in upstream.requests
        if seen.path not in ("/api/version", "/api/ps", "/api/tags")
    ]


def assert_refused(answer: Answer, method: str, path: str) -> None:
    if method == "HEAD":
        assert answer.status == 403
    else:
        assert_error(answer, dialect_of(path), 403)
    assert allowances(answer) == []


# Without tokens.


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
def test_without_tokens_other_pages_are_refused(
    method: str, path: str, body: Any, tokenless: LocalGateway, upstream: FaultUpstream
) -> None:
    for origin in FOREIGN:
        assert_refused(request(tokenless, method, path, body, {"Origin": origin}), method, path)
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        assert_refused(request(tokenless, method, path, body, headers), method, path)
    assert asked(upstream) == []


@pytest.mark.parametrize("content_type", SIMPLE_TYPES)
@pytest.mark.parametrize(
    "path", ["/api/generate", "/api/create", "/v1/chat/completions", "/v1/messages"]
)
def test_without_tokens_forms_of_other_pages_are_refused(
    path: str, content_type: str, tokenless: LocalGateway, upstream: FaultUpstream
) -> None:
    """`null` is the origin of a form on a page with `Referrer-Policy: no-referrer`, or
    in a sandboxed frame."""
    for origin in (EVIL, "null"):
        headers = {"Origin": origin, "Content-Type": content_type}
        assert_refused(request(tokenless, "POST", path, CHAT, headers), "POST", path)
    assert asked(upstream) == []


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
def test_without_tokens_every_preflight_is_refused(
    method: str, path: str, body: Any, tokenless: LocalGateway
) -> None:
    for origin in (PAGE, EVIL, "null"):
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type",
            "Access-Control-Request-Private-Network": "true",
        }
        assert_refused(request(tokenless, "OPTIONS", path, headers=headers), "OPTIONS", path)


REBOUND = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.nip.example",
    "192.168.1.5",
    "a.b.",
]


@pytest.mark.parametrize("host", REBOUND)
def test_without_tokens_a_rebound_name_is_refused(
    host: str, tokenless: LocalGateway, upstream: FaultUpstream
) -> None:
    """To the browser the page and the gateway are then one site."""
    for headers in ({}, {"Origin": f"http://{host}"}, {"Sec-Fetch-Site": "same-origin"}):
        for method, path, body in PATHS:
            assert_refused(
                request(tokenless, method, path, body, {"Host": host, **headers}), method, path
            )
    assert asked(upstream) == []


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:11434", "127.0.0.1:1", "[::1]:80", "ollama.localhost"]
)
def test_without_tokens_programs_and_own_pages_are_answered(
    host: str, tokenless: LocalGateway, upstream: FaultUpstream
) -> None:
    own = {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    for headers in (
        {},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Sec-Fetch-Site": "none"},
        own,
    ):
        answer = request(tokenless, "POST", "/api/chat", CHAT, {"Host": host, **headers})
        assert (answer.status, allowances(answer)) == (200, [])
    assert len(asked(upstream)) == 4


def test_without_tokens_a_refusal_comes_before_the_body(tokenless: LocalGateway) -> None:
    headers = {"Origin": EVIL, "Content-Length": "1000000"}
    headers["Host"] = "127.0.0.1:8080"
    with tokenless.start_stream("POST", "/api/chat", None, headers) as stream:
        assert stream.status == 403


def test_without_tokens_in_an_open_network(upstream: FaultUpstream) -> None:
    settings = {
        "auth": {"enabled": False, "allow_open_network": True},
        "server": {"allowed_hosts": ["box.lan"]},
        "service": {"base_url": upstream.url},
    }
    with LocalGateway(settings, environ={"HOST": "0.0.0.0"}) as running:
        hosts = (
            "192.168.1.5:8080",
            "[fe80::1]",
            "box.lan:80",
            "localhost",
            "evil.example",
            "box.lan.evil.example",
        )
        said = {
            host: request(running, "GET", "/api/tags", headers={"Host": host}).status
            for host in hosts
        }
        assert said == dict.fromkeys(hosts[:4], 200) | dict.fromkeys(hosts[4:], 403)
        own = {"Host": "192.168.1.5:8080", "Origin": "http://192.168.1.5:8080"}
        assert request(running, "POST", "/api/chat", CHAT, own).status == 200
        assert_refused(
            request(running, "POST", "/api/chat", CHAT, {"Origin": EVIL}), "POST", "/api/chat"
        )


# With tokens.


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
def test_a_page_that_is_not_listed_is_refused_before_its_token_is_checked(
    method: str, path: str, body: Any, listed: LocalGateway, upstream: FaultUpstream
) -> None:
    for token in (bearer(TOKEN), bearer("wrong"), {}):
        for origin in FOREIGN:
            assert_refused(
                request(listed, method, path, body, {"Origin": origin, **token}), method, path
            )
            headers = {"Origin": origin, "Access-Control-Request-Method": method, **token}
            assert_refused(request(listed, "OPTIONS", path, headers=headers), "OPTIONS", path)
    assert asked(upstream) == []


@pytest.mark.parametrize("origin", [PAGE, "app://obsidian.md"])
def test_a_listed_page_is_answered(origin: str, listed: LocalGateway) -> None:
    answer = request(
        listed, "POST", "/v1/chat/completions", CHAT, {"Origin": origin, **bearer(TOKEN)}
    )
    assert (answer.status, answer.headers.get("access-control-allow-origin")) == (200, origin)
    denied = request(listed, "POST", "/v1/chat/completions", CHAT, {"Origin": origin})
    assert (denied.status, denied.headers.get("access-control-allow-origin")) == (401, origin)


def test_a_page_of_the_gateways_own_address_is_answered(listed: LocalGateway) -> None:
    headers = {"Host": "gw.example", "Origin": "https://gw.example", **bearer(TOKEN)}
    assert request(listed, "POST", "/api/chat", CHAT, headers).status == 200


def test_two_origins_are_no_origin(listed: LocalGateway, tokenless: LocalGateway) -> None:
    for own in (PAGE, "http://localhost"):
        headers = [*bearer(TOKEN).items(), ("Host", "localhost"), ("Origin", own), ("Origin", EVIL)]
        for gateway in (listed, tokenless):
            assert gateway.request("GET", "/api/version", None, headers).status in (400, 403)


def test_an_edit_of_the_origins_takes_effect(upstream: FaultUpstream) -> None:
    headers = {"Origin": EVIL, **bearer(TOKEN)}
    with LocalGateway(config(upstream.url)) as running:
        assert request(running, "GET", "/api/tags", headers=headers).status == 200
        running.apply(config(upstream.url, cors={"origins": [PAGE]}))
        assert request(running, "GET", "/api/tags", headers=headers).status == 403
