"""Who is asking: every form of a token, and everything that is none."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from tests.golden.face import local_gateway
from tests.rig import fault_upstream as do
from tests.rig.errors import assert_error
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.tables import check_rows

TOKEN, OTHER, READER, NARROW = "sk-team-token-1", "sk-team-token-2", "sk-reader", "sk-narrow"
HASHED, OLD, LAST_DAY = "sk-hashed", "sk-old", "sk-last-day"
TODAY = datetime.now(UTC).date()
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": False}
MESSAGE, RESPONSE = {**CHAT, "max_tokens": 9}, {"model": MODEL, "input": "hi"}

Form = tuple[str, list[tuple[str, str]]]
FORMS = ("raw", "bearer", "x-api-key", "api-key", "basic", "path")


def as_form(form: str, token: str) -> Form:
    """A path prefix and headers that carry a token."""
    password = base64.b64encode(f"anybody:{token}".encode()).decode()
    forms: dict[str, Form] = {
        "raw": ("", [("Authorization", token)]),
        "bearer": ("", [("Authorization", f"Bearer {token}")]),
        "x-api-key": ("", [("x-api-key", token)]),
        "api-key": ("", [("api-key", token)]),
        "basic": ("", [("Authorization", f"Basic {password}")]),
        "path": (f"/k/{token}", []),
    }
    return forms[form]


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    tokens = [
        TOKEN,
        OTHER,
        {"name": "reader", "token": READER, "scopes": ["read"]},
        {"name": "narrow", "token": NARROW, "models": ["other-model"]},
        {"name": "hashed", "sha256": hashlib.sha256(HASHED.encode()).hexdigest()},
        {"name": "old", "token": OLD, "expires": str(TODAY - timedelta(1))},
        {"name": "last-day", "token": LAST_DAY, "expires": str(TODAY + timedelta(1))},
    ]
    with local_gateway(shared_upstream, auth={"generate_tokens": tokens}) as running:
        yield running


def seen_by(upstream: FaultUpstream) -> list[str]:
    """Method and path of every request that reached the upstream, but for the gateway's
    own look at its health."""
    return [
        f"{seen.method} {seen.raw_path}"
        for seen in upstream.requests
        if (seen.path, seen.header("user-agent")) != ("/api/version", "ollama-proxy")
    ]


def ask(
    gateway: LocalGateway, form: str, token: str, method: str, path: str, body: Any = None
) -> Answer:
    prefix, headers = as_form(form, token)
    return gateway.request(method, prefix + path, body, [("User-Agent", "client/1"), *headers])


# Every form, the same rights.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("token", [TOKEN, HASHED, LAST_DAY])
def test_every_form_is_accepted_in_every_dialect(
    gateway: LocalGateway, form: str, token: str
) -> None:
    assert ask(gateway, form, token, "GET", "/api/tags").status == 200
    assert ask(gateway, form, token, "GET", "/v1/models").status == 200
    assert (
        ask(gateway, form, token, "POST", "/api/chat", CHAT).json()["message"]["content"]
        == "Hello from upstream"
    )
    assert (
        ask(gateway, form, token, "POST", "/v1/chat/completions", CHAT).json()["object"]
        == "chat.completion"
    )
    assert (
        ask(gateway, form, token, "POST", "/v1/responses", RESPONSE).json()["object"] == "response"
    )
    assert ask(gateway, form, token, "POST", "/v1/messages", MESSAGE).json()["type"] == "message"


RIGHTS: list[tuple[str, str, str, Any, int]] = [
    (READER, "GET", "/api/tags", None, 200),
    (READER, "POST", "/api/chat", CHAT, 403),
    (READER, "POST", "/v1/chat/completions", CHAT, 403),
    (READER, "POST", "/v1/responses", RESPONSE, 403),
    (READER, "POST", "/v1/messages", MESSAGE, 403),
    (READER, "POST", "/v1/messages/count_tokens", MESSAGE, 403),
    (READER, "DELETE", "/api/delete", {"model": "m"}, 403),
    (NARROW, "POST", "/api/chat", CHAT, 404),
    (NARROW, "POST", "/v1/chat/completions", CHAT, 404),
    (NARROW, "POST", "/v1/responses", RESPONSE, 404),
    (NARROW, "POST", "/v1/messages", MESSAGE, 404),
    (NARROW, "POST", "/v1/messages/count_tokens", MESSAGE, 404),
    (NARROW, "POST", "/api/chat", {**CHAT, "model": "other-model"}, 200),
    (OLD, "GET", "/api/tags", None, 401),
    ("unknown", "GET", "/api/tags", None, 401),
]


def test_rights_do_not_depend_on_the_form(gateway: LocalGateway) -> None:
    def check(form: str, row: tuple[str, str, str, Any, int]) -> None:
        token, method, path, body, status = row
        assert ask(gateway, form, token, method, path, body).status == status

    check_rows(product(FORMS, RIGHTS), check)


@pytest.mark.parametrize("path", [f"/k/{TOKEN}/", f"/k/{TOKEN}", "/"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_clients_that_only_know_a_base_url_find_an_ollama_there(
    gateway: LocalGateway, method: str, path: str
) -> None:
    answer = gateway.request(method, path)
    assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"Ollama is running")


@pytest.mark.parametrize("form", [form for form in FORMS if form != "raw"])
def test_the_same_token_in_two_forms_is_one_token(gateway: LocalGateway, form: str) -> None:
    prefix, headers = as_form(form, TOKEN)
    second = [("x-api-key", TOKEN)] if form in ("bearer", "basic") else [("Authorization", TOKEN)]
    assert gateway.request("GET", f"{prefix}/api/tags", headers=[*headers, *second]).status == 200


PAIRS = [
    ("bearer", "x-api-key"),
    ("bearer", "api-key"),
    ("x-api-key", "api-key"),
    ("basic", "x-api-key"),
]
PAIRS += [("path", other) for other in FORMS if other != "path"]


TWO_TOKENS = [(TOKEN, OTHER), (READER, TOKEN), (TOKEN, "unknown"), ("unknown", TOKEN)]


def test_two_different_tokens_never_mix(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    def check(forms: tuple[str, str], tokens: tuple[str, str]) -> None:
        before = len(seen_by(upstream))
        prefix, headers = as_form(forms[0], tokens[0])
        _, more = as_form(forms[1], tokens[1])
        answer = gateway.request("GET", f"{prefix}/api/tags", headers=[*headers, *more])
        assert_error(answer, "native", 401)
        assert seen_by(upstream)[before:] == []

    check_rows(product(PAIRS, TWO_TOKENS), check)


# Addresses that do not exist.

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
UNKNOWN = ("/nope", "/api/nope", "/v1/nope", "/api", "/admin/api/nope", "/favicon.ico", "/k/")


def test_unknown_addresses_need_a_token_too(gateway: LocalGateway) -> None:
    def check(method: str, path: str) -> None:
        assert gateway.request(method, path).status == 401
        assert gateway.request(method, path, headers=bearer(TOKEN)).status == 404

    check_rows(product(METHODS, UNKNOWN), check)


# What is no token; rows B14 and B15 have the rest.


@pytest.mark.parametrize(
    "query", [f"token={TOKEN}", f"api_key={TOKEN}", f"key={TOKEN}", f"access_token={TOKEN}"]
)
def test_a_token_in_the_query_does_not_count(gateway: LocalGateway, query: str) -> None:
    assert gateway.request("GET", f"/api/tags?{query}").status == 401


# What goes on to the upstream.

ASKED = [
    ("/api/chat", CHAT),
    ("/v1/chat/completions", CHAT),
    ("/v1/responses", RESPONSE),
    ("/v1/messages", MESSAGE),
]


PERSONAL = [
    ("Cookie", "session=secret-cookie"),
    ("Origin", "https://evil.example"),
    ("Referer", "https://evil.example/page"),
    ("Forwarded", "for=6.6.6.6"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Real-IP", "6.6.6.6"),
    ("Proxy-Authorization", "Basic secret"),
    ("OpenAI-Organization", "org-secret"),
    ("Anthropic-Beta", "secret-beta"),
]
SECRET = [
    TOKEN,
    base64.b64encode(f"anybody:{TOKEN}".encode()).decode(),
    "secret",
    "evil",
    "6.6.6.6",
    "authorization",
    "api-key",
    "cookie",
    "forwarded",
]


def test_nothing_of_who_asks_reaches_the_upstream(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(form: str, request: tuple[str, dict[str, Any]]) -> None:
        path, body = request
        prefix, headers = as_form(form, TOKEN)
        headers = [*headers, *PERSONAL]
        answer = gateway.request("POST", f"{prefix}{path}?key={TOKEN}", body, headers)
        assert answer.status == 200
        seen = upstream.requests[-1]
        assert seen.header("host") == f"127.0.0.1:{upstream.port}"
        assert seen.raw_path == "/api/chat"
        sent = " ".join(f"{name.lower()}: {value}" for name, value in seen.headers)
        sent += seen.body.decode()
        assert [secret for secret in SECRET if secret in sent] == []

    check_rows(product(FORMS, ASKED), check)


def test_what_the_upstream_wants_to_store_at_one_client_reaches_nobody(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", [do.Json({"message": {}, "done": True}, 200, {"Set-Cookie": "sid=userA"})]
    )
    for token in (TOKEN, OTHER):
        answer = gateway.request("POST", "/api/chat", CHAT, bearer(token))
        assert answer.headers.get("set-cookie") is None
        assert [seen.header("cookie") for seen in upstream.requests if seen.path == "/api/chat"][
            -1
        ] is None


# No authentication at all.


LOCAL = {"Host": "127.0.0.1"}


def test_without_authentication_any_token_or_none_will_do(upstream: FaultUpstream) -> None:
    with local_gateway(upstream, auth={"enabled": False}, environ={"HOST": "127.0.0.1"}) as running:
        for headers in ({}, bearer("not-needed"), {"x-api-key": "a", "api-key": "b"}):
            answer = running.request("POST", "/v1/chat/completions", CHAT, LOCAL | headers)
            assert answer.status == 200
        assert running.request("GET", "/k/anything/api/tags", None, LOCAL).status == 200
        assert running.request("GET", "/nope", None, LOCAL).status == 404


def test_an_open_network_may_use_models_and_see_no_tokens(upstream: FaultUpstream) -> None:
    auth = {"enabled": False, "allow_open_network": True}
    with local_gateway(upstream, auth=auth, environ={"HOST": "0.0.0.0"}) as running:
        assert running.request("GET", "/api/tags", None, LOCAL).status == 200
        assert running.request("GET", "/admin/api/tokens", None, LOCAL).status == 403
