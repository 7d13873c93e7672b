"""Web pages as clients, and the headers that every answer carries."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from tests.golden.face import local_gateway
from tests.rig import fault_upstream as do
from tests.rig import native_chat
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.tables import check_rows

TOKEN = "sk-team-token-1"
PAGE, EVIL = "https://chat.example", "https://evil.example"
DIGEST = "sha256:" + "0" * 64
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": False}
MESSAGE = {**CHAT, "max_tokens": 9}

API_ROUTES = [
    ("POST", "/api/chat"),
    ("GET", "/api/tags"),
    ("GET", "/api/version"),
    ("DELETE", "/api/delete"),
    ("HEAD", f"/api/blobs/{DIGEST}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/anthropic/v1/messages"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/m"),
]
PAGES = ["/", "/health", "/livez", "/readyz"]

#: One request of every kind of answer: path, method, body, with a token or without.
ANSWERS: list[tuple[str, str, Any, bool]] = [
    ("/", "GET", None, False),
    ("/health", "GET", None, True),
    ("/livez", "HEAD", None, False),
    ("/readyz", "GET", None, True),
    ("/api/tags", "GET", None, True),
    ("/api/tags", "GET", None, False),
    ("/api/version", "HEAD", None, True),
    ("/api/chat", "POST", CHAT, True),
    ("/api/chat", "POST", {**CHAT, "stream": True}, True),
    ("/api/chat", "POST", b"{", True),
    ("/api/chat", "GET", None, True),
    ("/api/chat", "OPTIONS", None, False),
    ("/api/me", "POST", {}, True),
    ("/api/copy", "POST", {"source": "a", "destination": "b"}, True),
    ("/v1/models", "GET", None, True),
    ("/v1/models/nope", "GET", None, True),
    ("/v1/chat/completions", "POST", CHAT, True),
    ("/v1/chat/completions", "POST", {**CHAT, "stream": True}, True),
    ("/v1/chat/completions", "POST", CHAT, False),
    ("/v1/embeddings", "POST", {"model": MODEL, "input": "hi"}, True),
    ("/v1/responses", "POST", {"model": MODEL, "input": "hi"}, True),
    ("/v1/responses", "POST", {"model": MODEL, "input": "hi", "stream": True}, True),
    ("/v1/responses/resp_1", "GET", None, True),
    ("/v1/messages", "POST", MESSAGE, True),
    ("/v1/messages", "POST", {**MESSAGE, "stream": True}, True),
    ("/v1/messages", "POST", MESSAGE, False),
    ("/v1/messages/count_tokens", "POST", MESSAGE, True),
    ("/anthropic/nope", "GET", None, True),
    ("/nope", "GET", None, True),
    ("/nope", "GET", None, False),
]


shared_gateway = module_fixture(
    lambda shared_upstream: local_gateway(shared_upstream, auth={"generate_tokens": [TOKEN]})
)


def preflight(
    gateway: LocalGateway, method: str, path: str, origin: str = PAGE, **headers: str
) -> Answer:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-api-key,x-stainless-os",
        **headers,
    }
    return gateway.request("OPTIONS", path, headers=asked)


def allowances(answer: Answer) -> dict[str, str]:
    """The headers that speak of other origins."""
    return {
        name.lower(): value
        for name, value in answer.headers
        if name.lower().startswith("access-control-")
    }


def words(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")}


def test_a_preflight_on_an_api_route_is_answered_without_a_token(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(prefix: str, route: tuple[str, str]) -> None:
        method, path = route
        answer = preflight(gateway, method, prefix + path)
        allowed = allowances(answer)
        assert (answer.status in (200, 204), answer.body) == (True, b"")
        assert allowed["access-control-allow-origin"] in ("*", PAGE)
        assert method.lower() in words(allowed["access-control-allow-methods"])
        assert {"authorization", "content-type", "x-api-key"} <= words(
            allowed["access-control-allow-headers"]
        )
        assert int(allowed["access-control-max-age"]) > 0
        assert [seen.path for seen in upstream.requests if seen.path != "/api/version"] == []

    check_rows(product(("", f"/k/{TOKEN}"), API_ROUTES), check)


def test_credentials_and_private_networks_are_never_allowed(gateway: LocalGateway) -> None:
    def check(method: str, path: str) -> None:
        private = {"Access-Control-Request-Private-Network": "true"}
        allowed = allowances(preflight(gateway, method, path, **private))
        assert "access-control-allow-credentials" not in allowed
        assert allowed.get("access-control-allow-private-network", "false") == "false"

    check_rows(API_ROUTES, check)


def test_pages_may_read_answers_and_errors_of_the_api_alone(gateway: LocalGateway) -> None:
    def check(path: str, method: str, body: Any, with_token: bool) -> None:
        headers = {"Origin": PAGE, **(bearer(TOKEN) if with_token else {})}
        allowed = allowances(gateway.request(method, path, body, headers))
        if path.startswith(("/api/", "/v1/", "/anthropic/")):
            assert allowed["access-control-allow-origin"] in ("*", PAGE)
            assert "x-request-id" in words(allowed["access-control-expose-headers"])
        else:
            assert allowed == {}

    check_rows(ANSWERS, check)


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_pages_of_operators_are_for_no_other_site(
    gateway: LocalGateway, path: str, method: str
) -> None:
    headers = {"Origin": PAGE, "Access-Control-Request-Method": "GET", **bearer(TOKEN)}
    assert allowances(gateway.request(method, path, headers=headers)) == {}


def test_without_an_origin_there_is_nothing_to_allow(gateway: LocalGateway) -> None:
    assert allowances(gateway.ask("/api/tags")) == {}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_what_an_upstream_allows_counts_for_nothing(
    gateway: LocalGateway, upstream: FaultUpstream, path: str, stream: bool
) -> None:
    said = {
        "Access-Control-Allow-Origin": EVIL,
        "Access-Control-Allow-Credentials": "true",
        "Cache-Control": "public",
    }
    done = native_chat.done("hi", model=MODEL)
    streamed: list[Any] = [
        do.Head(200, {**said, "Content-Type": "application/x-ndjson"}),
        do.Lines([done]),
    ]
    upstream.script("/api/chat", streamed if stream else [do.Json(done, 200, said)])
    answer = gateway.request(
        "POST", path, {**MESSAGE, "stream": stream}, {"Origin": PAGE, **bearer(TOKEN)}
    )
    assert answer.status == 200
    assert allowances(answer)["access-control-allow-origin"] in ("*", PAGE)
    assert "access-control-allow-credentials" not in allowances(answer)
    assert answer.headers.get_all("cache-control") == ["no-store"]


# Every answer.


def test_every_answer_has_an_id_and_is_stored_by_nobody(gateway: LocalGateway) -> None:
    def check(path: str, method: str, body: Any, with_token: bool) -> None:
        headers = bearer(TOKEN) if with_token else {}
        answers = [gateway.request(method, path, body, headers) for _ in range(2)]
        ids = [answer.headers.get("x-request-id") or "" for answer in answers]
        assert all(re.fullmatch(r"[0-9a-f]{24}", each) for each in ids) and ids[0] != ids[1]
        assert [each.headers.get_all("cache-control") for each in answers] == [["no-store"]] * 2

    check_rows(ANSWERS, check)


def test_the_clients_own_id_comes_back(gateway: LocalGateway) -> None:
    def check(path: str, method: str, body: Any, with_token: bool) -> None:
        headers = {"X-Request-Id": "job-7:a.b_C", **(bearer(TOKEN) if with_token else {})}
        answer = gateway.request(method, path, body, headers)
        assert answer.headers.get_all("x-request-id") == ["job-7:a.b_C"]

    check_rows(ANSWERS, check)


@pytest.mark.parametrize(
    "sent", ["", "a b", "x" * 129, "<script>", 'a"b', "\xe4", "a,b", "id1\tid2"]
)
def test_what_is_no_id_does_not_come_back(gateway: LocalGateway, sent: str) -> None:
    answer = gateway.request("GET", "/api/tags", headers={**bearer(TOKEN), "X-Request-Id": sent})
    assert answer.headers.get("x-request-id") != sent


def test_the_upstreams_id_does_not_replace_the_clients(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/tags", [do.Json({"models": []}, 200, {"X-Request-Id": "upstreams"})])
    answer = gateway.request("GET", "/api/tags", headers={**bearer(TOKEN), "X-Request-Id": "mine"})
    assert answer.headers.get_all("x-request-id") == ["mine"]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_streams_are_held_back_by_no_proxy(
    gateway: LocalGateway, upstream: FaultUpstream, path: str
) -> None:
    answer = gateway.ask(path, {**MESSAGE, "stream": True})
    assert (answer.status, answer.headers.get("x-accel-buffering")) == (200, "no")
    assert gateway.ask(path, MESSAGE).headers.get("x-accel-buffering") is None


def test_no_answer_says_what_it_was_made_with(gateway: LocalGateway) -> None:
    def check(path: str, method: str, body: Any, with_token: bool) -> None:
        answer = gateway.request(method, path, body, bearer(TOKEN) if with_token else {})
        heads = " ".join(f"{name}: {value}" for name, value in answer.headers).lower()
        hints = ("werkzeug", "python", "flask", "gevent", "x-powered-by", "set-cookie")
        assert [word for word in hints if word in heads] == []
        assert not re.search(r"gunicorn/\d", heads)

    check_rows(ANSWERS, check)
