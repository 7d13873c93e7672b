"""Rows B14-B16: everything that is no token, two tokens at once, and one token in every
form that is accepted."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from itertools import combinations, permutations, product

import pytest

from tests.reliability.rig import TOKEN, Rig, Row, nginx_decides
from tests.reliability.sweep import (
    BODIES,
    MODEL,
    TO_F,
    Ask,
    Route,
    answer_everything,
    protected_routes,
    sweep,
    sweep_locally,
)
from tests.rig.deadline import wait_for_minute
from tests.rig.errors import assert_error, dialect_of
from tests.rig.http_client import Answer, raw, request

READER, NARROW, OTHER = "token-that-reads", "token-of-one-model", "token-of-others"
#: For each door one with a limit: as many requests as there are forms.
COUNTED = {"gateway": "token-counted-at-the-gateway", "nginx": "token-counted-at-nginx"}
Headers = list[tuple[str, str]]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    tokens = [
        {"name": "team", "token": TOKEN, "limits": {"concurrent": 100}},
        {"name": "others", "token": OTHER},
        {"name": "reader", "token": READER, "scopes": ["read"]},
        {"name": "narrow", "token": NARROW, "models": ["m"], "scopes": ["generate"]},
    ]
    limits = {"requests_per_minute": len(FORMS)}
    tokens += [
        {"name": f"counted-{door}", "token": token, "limits": limits}
        for door, token in COUNTED.items()
    ]
    with Rig(
        config={"auth": {"generate_tokens": tokens, "max_failed_logins": 0}}, shares=True
    ) as running:
        yield running


def asked_of_f(row: Row) -> list[str]:
    """What F was asked by clients; the gateway looks after it by itself."""
    return [
        f"{seen.method} {seen.raw_path}"
        for seen in row.upstream.requests
        if seen.header("user-agent") != "ollama-proxy"
    ]


# B14

NO_TOKENS: dict[str, list[tuple[str, bytes]]] = {
    "none": [],
    "empty": [("Authorization", b"")],
    "blanks": [("Authorization", b"  \t ")],
    "empty key": [("x-api-key", b"")],
    "only Bearer": [("Authorization", b"Bearer")],
    "Bearer and blanks": [("Authorization", b"Bearer   ")],
    "Bearer twice": [("Authorization", b"Bearer Bearer " + TOKEN.encode())],
    "other scheme": [("Authorization", b"Digest " + TOKEN.encode())],
    "token scheme": [("Authorization", b"Token " + TOKEN.encode())],
    "negotiate": [("Authorization", b"Negotiate YII=")],
    "two headers": [("Authorization", f"Bearer {TOKEN}".encode())] * 2,
    "two different headers": [
        ("Authorization", f"Bearer {name}".encode()) for name in (TOKEN, OTHER)
    ],
    "comma list": [("Authorization", f"Bearer {TOKEN}, Bearer {OTHER}".encode())],
    "comma list of one": [("Authorization", f"Bearer {TOKEN},".encode())],
    "two api keys": [("x-api-key", TOKEN.encode())] * 2,
    "latin-1": [("Authorization", b"Bearer \xe4\xf6\xfc")],
    "UTF-8": [("Authorization", "Bearer 令牌".encode())],
    "no-break space behind": [("x-api-key", TOKEN.encode() + b"\xa0")],
    "tab for a blank": [("Authorization", b"Bearer\t" + TOKEN.encode())],
    "quoted": [("Authorization", f'Bearer "{TOKEN}"'.encode())],
    "in capitals": [("Authorization", f"Bearer {TOKEN.upper()}".encode())],
    "a part of it": [("Authorization", f"Bearer {TOKEN[:-1]}".encode())],
    "more than it": [("Authorization", f"Bearer {TOKEN}x".encode())],
    "its name": [("Authorization", b"Bearer team")],
    "broken basic": [("Authorization", b"Basic !!!")],
    "basic, but the user": [
        ("Authorization", b"Basic " + base64.b64encode(TOKEN.encode() + b":x"))
    ],
    "basic that is no text": [
        ("Authorization", b"Basic " + base64.b64encode(b"\xff\xfe:\x00\xff"))
    ],
    "8,000 characters": [("Authorization", b"Bearer " + b"x" * 8000)],
    "junk far behind": [("Authorization", f"Bearer {TOKEN}".encode() + b" " * 5000 + b"junk")],
    "proxy header": [("Proxy-Authorization", f"Bearer {TOKEN}".encode())],
    "underscore twin": [("X_API_KEY", TOKEN.encode())],
    "cookie": [("Cookie", f"token={TOKEN}; Authorization={TOKEN}".encode())],
}
#: The answer to nobody, to a stranger, and to two at once.
BODIES_OF_401 = ("未提供认证token", "非授权访问", "two different tokens")
QUERIES = ("token", "api_key", "key", "access_token", "Authorization", "x-api-key")


def let_in(ask: Ask, route: Route, headers: list[tuple[str, bytes]]) -> str | None:
    """How something that is no token was not answered with 401, if it was not."""
    items = [
        ("User-Agent", "client/1"),
        *((name, value.decode("latin-1")) for name, value in headers),
    ]
    body = BODIES.get(route.path, {}) if route.method in ("POST", "DELETE") else None
    answer = ask(route.method, route.path, body, items)
    if (
        answer.status == 400
        and not answer.headers.get("x-request-id")
        and [name for name, _ in headers].count("Authorization") == 2
    ):
        return None  # nginx says by itself that two of these are one too many
    if answer.status != 401 or answer.headers.get("www-authenticate") != "Bearer":
        return f"{route.method} {route.path} {headers}: {answer.status}"
    if route.method == "HEAD":
        return None
    text = assert_error(answer, dialect_of(route.path), 401)
    return (
        None if any(words in text for words in BODIES_OF_401) else f"{route.path} {headers}: {text}"
    )


@nginx_decides
def test_b14_what_is_no_token(row: Row) -> None:
    routes = [route for route in protected_routes() if route.method != "HEAD"]
    routes += [Route(method, "/nope", "") for method in ("HEAD", "GET", "POST")]
    few = [route for route in routes if route.path in ("/api/tags", "/v1/messages", "/nope")]
    at_door = [*product(few, NO_TOKENS.values())]
    assert sweep_locally(row, let_in, product(routes, NO_TOKENS.values()), at_door) == []
    for query in QUERIES:
        assert row.ask("GET", f"/api/tags?{query}={TOKEN}", token=None).status == 401
    long = f"GET /api/tags HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {'x' * 65536}\r\n\r\n"
    assert raw(row.port, long.encode()).startswith(b"HTTP/1.1 431 ")
    assert asked_of_f(row) == []
    row.measured("routes x forms", len(routes) * len(NO_TOKENS), "")


# B15 and B16


def as_forms(token: str) -> dict[str, tuple[str, Headers]]:
    """A path prefix and headers for every form in which a token is accepted."""
    password = base64.b64encode(f"anybody:{token}".encode()).decode()
    return {
        "bare": ("", [("Authorization", token)]),
        "bearer": ("", [("Authorization", f"Bearer {token}")]),
        "small letters": ("", [("authorization", f"bearer {token}")]),
        "basic": ("", [("Authorization", f"Basic {password}")]),
        "x-api-key": ("", [("x-api-key", token)]),
        "api-key": ("", [("api-key", token)]),
        "path": (f"/k/{token}", []),
    }


FORMS = tuple(as_forms(""))
IN_ONE_HEADER = {"bare", "bearer", "small letters", "basic"}
#: Forms that one request can have both of; two Authorization headers are no token at all.
PAIRS = [pair for pair in combinations(FORMS, 2) if not set(pair) <= IN_ONE_HEADER]


def ask(
    row: Row, forms: list[tuple[str, Headers]], method: str, path: str, model: str = MODEL
) -> Answer:
    """A request with several tokens, or one in several forms."""
    prefix = "".join(prefix for prefix, _ in forms)
    body = {**BODIES[path], "model": model} if path in BODIES else None
    return request(
        row.url,
        method,
        prefix + path,
        body,
        [*TO_F.items(), *(item for _, items in forms for item in items)],
    )


def test_b15_two_tokens_at_once(row: Row) -> None:
    tokens = (*permutations((TOKEN, OTHER, READER), 2), (TOKEN, "unknown"), ("unknown", TOKEN))
    for (first, second), (one, other), path in product(
        PAIRS, tokens, ("/api/chat", "/v1/chat/completions")
    ):
        answer = ask(row, [as_forms(one)[first], as_forms(other)[second]], "POST", path)
        assert "two different tokens" in assert_error(answer, dialect_of(path), 401), (
            first,
            second,
            one,
            other,
        )
    assert asked_of_f(row) == []
    for first, second in PAIRS:
        both = [as_forms(TOKEN)[first], as_forms(TOKEN)[second]]
        assert ask(row, both, "POST", "/api/chat").status == 200, (first, second)


#: What three tokens may do and may not: token, method, path, model, status.
RIGHTS = [
    (READER, "GET", "/api/tags", "m", 200),
    (READER, "GET", "/v1/models", "m", 200),
    (READER, "POST", "/api/show", "m", 200),
    *(
        (READER, "POST", path, "m", 403)
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/api/pull")
    ),
    *(
        (NARROW, "POST", path, "m", 200)
        for path in ("/api/chat", "/v1/responses", "/v1/messages", "/v1/embeddings")
    ),
    *(
        (NARROW, "POST", path, "tiny-test", 404)
        for path in ("/api/chat", "/v1/responses", "/v1/messages", "/api/embed")
    ),
    (NARROW, "GET", "/api/tags", "m", 403),
    (NARROW, "DELETE", "/api/delete", "m", 403),
    (TOKEN, "DELETE", "/api/delete", "m", 200),
    (TOKEN, "POST", "/api/pull", "m", 200),
    (TOKEN, "POST", "/api/chat", "tiny-test", 200),
    ("unknown", "GET", "/api/tags", "m", 401),
]


def plain(answer: Answer) -> bytes:
    """An answer without what no two answers have in common."""
    return re.sub(
        rb'"(id|created|created_at|completed_at|request_id)":("[^"]*"|\d+)', b"", answer.body
    )


def differing(row: Row, token: str, method: str, path: str, model: str, status: int) -> str | None:
    """How the form of a token made a difference, if it did."""
    answers = {
        form: ask(row, [sent], method, path, model) for form, sent in as_forms(token).items()
    }
    is_same = len({plain(answer) for answer in answers.values()}) == 1
    statuses = {form: answer.status for form, answer in answers.items()}
    is_right = statuses == dict.fromkeys(FORMS, status)
    return None if is_same and is_right else f"{method} {path} for {model} with {token}: {statuses}"


def use_up(row: Row) -> None:
    """The limit of a token: each form takes one request of the same minute; then
    all are refused alike."""
    forms = as_forms(COUNTED[row.door]).items()
    left = []
    wait_for_minute(10)
    for form, sent in forms:
        answer = ask(row, [sent], "POST", "/v1/chat/completions")
        assert answer.status == 200, (form, answer.text)
        left.append(int(answer.headers.get("x-ratelimit-remaining-requests") or -1))
    assert left == list(reversed(range(len(FORMS))))
    refused = {form: ask(row, [sent], "POST", "/v1/chat/completions") for form, sent in forms}
    assert {
        form: answer.json()["error"]["code"] for form, answer in refused.items()
    } == dict.fromkeys(FORMS, "rate_limit_exceeded")
    assert {int(answer.headers.get("Retry-After") or 0) > 0 for answer in refused.values()} == {
        True
    }


def test_b16_rights_and_limits_in_every_form(row: Row) -> None:
    answer_everything(row.upstream)
    assert sweep(lambda case: differing(row, *case), RIGHTS) == []
    use_up(row)
