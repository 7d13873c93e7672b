"""What a token may do: management, loading, models, and what nobody may do here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.golden.face import local_gateway
from tests.rig import fault_upstream as do
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.tables import check_rows

TEAM, BOSS, EVERYTHING, NARROW, NARROW_BOSS, PATTERN = (
    "sk-team",
    "sk-boss",
    "sk-everything",
    "sk-narrow",
    "sk-narrow-boss",
    "sk-pattern",
)
DIGEST = "sha256:" + "0" * 64
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": False}
OK = [do.Json({"status": "success"})]

MANAGEMENT: list[tuple[str, str, Any]] = [
    ("POST", "/api/pull", {"model": MODEL, "stream": False}),
    ("POST", "/api/push", {"model": MODEL, "stream": False}),
    ("POST", "/api/create", {"model": MODEL, "from": MODEL, "stream": False}),
    ("POST", "/api/copy", {"source": MODEL, "destination": MODEL}),
    ("DELETE", "/api/delete", {"model": MODEL}),
    ("HEAD", f"/api/blobs/{DIGEST}", None),
    ("POST", f"/api/blobs/{DIGEST}", b"bytes"),
]

REFUSED = [
    ("POST", "/api/me"),
    ("POST", "/api/signout"),
    ("DELETE", "/api/user/keys/abc"),
    ("DELETE", "/api/user/keys/a%2Fb"),
    ("POST", "/api/experimental/web_search"),
    ("POST", "/api/experimental/web_fetch"),
    ("GET", "/api/experimental/anything"),
    ("POST", "/api/web_search"),
    ("POST", "/api/web_fetch"),
]


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway with tokens of both lists."""
    generate = [
        TEAM,
        {"name": "narrow", "token": NARROW, "models": ["tiny-test"]},
        {"name": "pattern", "token": PATTERN, "models": ["tiny*", "qwen3:*"]},
    ]
    manage = [
        BOSS,
        {"name": "everything", "token": EVERYTHING, "scopes": ["read", "generate", "manage"]},
    ]
    manage += [{"name": "narrow-boss", "token": NARROW_BOSS, "models": ["tiny-test"]}]
    auth = {"generate_tokens": generate, "manage_tokens": manage}
    with local_gateway(shared_upstream, auth=auth) as running:
        yield running


@pytest.fixture(scope="module")
def one_list(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway without `manage_tokens`."""
    with local_gateway(shared_upstream, auth={"generate_tokens": [TEAM]}) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: FaultUpstream) -> FaultUpstream:
    """The gateway's upstream, which takes management requests too."""
    shared_upstream.clear()
    for _, path, _ in MANAGEMENT:
        shared_upstream.script(path, OK)
    return shared_upstream


def ask(gateway: LocalGateway, token: str, method: str, path: str, body: Any = None) -> Answer:
    return gateway.request(method, path, body, {**bearer(token), "User-Agent": "client/1"})


def seen_by(upstream: FaultUpstream) -> list[str]:
    """Paths that reached the upstream, but for the gateway's own look at its health."""
    own = ("/api/version", "ollama-proxy")
    return [
        seen.raw_path for seen in upstream.requests if (seen.path, seen.header("user-agent")) != own
    ]


def last_prompt(upstream: FaultUpstream) -> Any:
    """The body of the last request for the sake of a test: the gateway's own look at its
    health may come behind it."""
    return [seen for seen in upstream.requests if seen.method == "POST"][-1].json()


# Management.


def test_generate_tokens_may_not_manage_where_there_are_manage_tokens(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(method: str, path: str, body: Any) -> None:
        before = len(seen_by(upstream))
        answer = ask(gateway, TEAM, method, path, body)
        if method == "HEAD":
            assert answer.status == 403
        else:
            assert "'manage'" in assert_error(answer, "native", 403)
        assert seen_by(upstream)[before:] == []

    check_rows(MANAGEMENT, check)


def test_tokens_with_the_scope_may(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    def check(token: str, request: tuple[str, str, Any]) -> None:
        before = len(seen_by(upstream))
        assert ask(gateway, token, *request).status == 200
        assert seen_by(upstream)[before:] == [request[1]]

    check_rows(product((BOSS, EVERYTHING), MANAGEMENT), check)


def test_without_manage_tokens_every_token_may(
    one_list: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(method: str, path: str, body: Any) -> None:
        before = len(seen_by(upstream))
        assert ask(one_list, TEAM, method, path, body).status == 200
        assert seen_by(upstream)[before:] == [path]

    check_rows(MANAGEMENT, check)


def test_account_cloud_and_web_routes_are_nobodys(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(token: str, route: tuple[str, str]) -> None:
        before = len(seen_by(upstream))
        method, path = route
        answer = ask(gateway, token, method, path, {} if method == "POST" else None)
        # An escape is refused before anything is looked up, which is as good.
        assert_error(answer, "native", 404 if "%" in path else 403)
        assert seen_by(upstream)[before:] == []

    check_rows(product((TEAM, BOSS, EVERYTHING), REFUSED), check)


CLOUD = [
    "gpt-oss:cloud",
    "gpt-oss:120b-cloud",
    "GPT-OSS:120B-CLOUD",
    "registry.ollama.ai/library/gpt-oss:120b-cloud",
]


CLOUD_FIELDS = [
    ("/api/chat", "model"),
    ("/api/generate", "model"),
    ("/api/embed", "model"),
    ("/api/pull", "model"),
    ("/api/pull", "name"),
    ("/api/create", "from"),
    ("/v1/chat/completions", "model"),
    ("/v1/completions", "model"),
    ("/v1/embeddings", "model"),
    ("/v1/responses", "model"),
    ("/v1/messages", "model"),
    ("/v1/messages/count_tokens", "model"),
]


def test_models_of_the_cloud_are_nobodys(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    def check(name: str, place: tuple[str, str]) -> None:
        before = len(seen_by(upstream))
        path, field = place
        body = {**CHAT, "prompt": "hi", "input": "hi", "max_tokens": 9, field: name}
        if field == "name":
            del body["model"]
        if path == "/v1/responses":
            body = {"model": name, "input": "hi"}
        answer = ask(gateway, BOSS, "POST", path, body)
        assert "cloud" in assert_error(answer, dialect_of(path), 403)
        assert seen_by(upstream)[before:] == []

    check_rows(product(CLOUD, CLOUD_FIELDS), check)


# Loading, unloading, pinning.

TOO_MUCH = [0, 0.0, "0", "0s", "-0m", -1, -1.5, "-1m", "25h", 90_000]
USUAL = ["5m", 300, 1.5, "1h30m", "24h", None]
SYNTAX = ["10", "-1", "", "abc", True, [], {}, "5 m"]
LEASED = [
    ("/api/chat", {**CHAT}),
    ("/api/generate", {"model": MODEL, "prompt": "hi", "stream": False}),
    ("/api/embed", {"model": MODEL, "input": "hi"}),
    ("/v1/chat/completions", {**CHAT}),
    ("/v1/completions", {"model": MODEL, "prompt": "hi"}),
    ("/v1/embeddings", {"model": MODEL, "input": "hi"}),
    ("/v1/responses", {"model": MODEL, "input": "hi"}),
    ("/v1/messages", {**CHAT, "max_tokens": 9}),
]


def test_unloading_and_pinning_a_shared_model_need_the_scope_manage(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(place: tuple[str, dict[str, Any]], keep_alive: Any) -> None:
        path, body = place
        before = len(seen_by(upstream))
        asked = {**body, "keep_alive": keep_alive}
        refused = ask(gateway, TEAM, "POST", path, asked)
        assert "'manage'" in assert_error(refused, dialect_of(path), 403)
        assert seen_by(upstream)[before:] == []
        assert ask(gateway, EVERYTHING, "POST", path, asked).status == 200
        assert last_prompt(upstream)["keep_alive"] == keep_alive

    check_rows(product(LEASED, TOO_MUCH), check)


def test_usual_leases_are_everybodys(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    def check(place: tuple[str, dict[str, Any]], keep_alive: Any) -> None:
        path, body = place
        answer = ask(gateway, TEAM, "POST", path, {**body, "keep_alive": keep_alive})
        assert answer.status == 200
        assert last_prompt(upstream).get("keep_alive") == keep_alive

    check_rows(product(LEASED, USUAL), check)


def test_leases_that_ollama_would_not_understand_are_400(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(place: tuple[str, dict[str, Any]], keep_alive: Any, token: str) -> None:
        before = len(seen_by(upstream))
        path, body = place
        answer = ask(gateway, token, "POST", path, {**body, "keep_alive": keep_alive})
        assert_error(answer, dialect_of(path), 400)
        assert seen_by(upstream)[before:] == []

    check_rows(product(LEASED, SYNTAX, (TEAM, EVERYTHING)), check)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_loading_a_model_is_everybodys_and_passes_as_it_came(
    one_list: LocalGateway, upstream: FaultUpstream, path: str
) -> None:
    loaded = {
        "model": MODEL,
        "created_at": "2026-01-01T00:00:00Z",
        "done": True,
        "done_reason": "load",
    }
    upstream.script(path, [do.Json(loaded)])
    answer = ask(one_list, TEAM, "POST", path, {"model": MODEL})
    assert (answer.json(), answer.headers.get("content-type")) == (
        loaded,
        "application/json; charset=utf-8",
    )


def test_without_manage_tokens_everybody_may_unload(
    one_list: LocalGateway, upstream: FaultUpstream
) -> None:
    assert ask(one_list, TEAM, "POST", "/api/chat", {**CHAT, "keep_alive": 0}).status == 200


# Models.

SPELLINGS = ["tiny-test", "TINY-Test", "tiny-test:latest", "library/tiny-test"]
SPELLINGS += ["registry.ollama.ai/library/tiny-test:latest", "Registry.Ollama.AI/Library/Tiny-Test"]
OTHERS = [
    "other",
    "tiny-test:q4",
    "team/tiny-test",
    "hf.co/library/tiny-test",
    "tiny-test2",
    "https://x/tiny-test",
]
OTHERS += ["tiny-test@sha256:" + "0" * 64, "xtiny-test", "tiny-test/evil", "tiny-test:latest/evil"]
BY_MODEL = [
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/show",
    "/v1/chat/completions",
    "/v1/completions",
]
BY_MODEL += ["/v1/messages", "/v1/messages/count_tokens"]


ECHOED: dict[str, dict[str, Any]] = {
    "/api/chat": CHAT,
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {**CHAT, "max_tokens": 9},
}


def test_a_right_covers_every_spelling_and_the_answer_echoes_it(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(path: str, name: str) -> None:
        answer = ask(gateway, NARROW, "POST", path, {**ECHOED[path], "model": name})
        assert (answer.status, answer.json()["model"]) == (200, name)
        assert last_prompt(upstream)["model"] == name

    check_rows(product(ECHOED, SPELLINGS), check)


def test_a_right_to_one_model_is_a_right_to_no_other(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, path: str) -> None:
        before = len(seen_by(upstream))
        body = {**CHAT, "model": name, "prompt": "hi", "input": "hi", "max_tokens": 9}
        answer = ask(gateway, NARROW, "POST", path, body)
        assert_error(answer, dialect_of(path), 404)
        assert seen_by(upstream)[before:] == []

    check_rows(product(OTHERS, BY_MODEL), check)


def test_a_refused_model_looks_like_one_that_does_not_exist(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [do.Json({"error": "model 'other' not found"}, 404)])
    bodies = [
        ask(gateway, token, "POST", "/api/chat", {**CHAT, "model": "other"}).json()
        for token in (NARROW, TEAM)
    ]
    assert bodies[0] == bodies[1]


DECIDED: list[tuple[dict[str, Any], int]] = [
    ({"model": "", "name": "tiny-test"}, 200),
    ({"model": None, "name": "tiny-test"}, 200),
    ({"name": "tiny-test"}, 200),
    ({"model": "tiny-test", "name": "other"}, 200),
    ({"model": "", "name": "other"}, 404),
    ({"name": "other"}, 404),
    ({"model": "other", "name": "tiny-test"}, 404),
]


def test_the_field_that_ollama_would_use_decides(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(path: str, row: tuple[dict[str, Any], int]) -> None:
        fields, status = row
        before = len(seen_by(upstream))
        method = "DELETE" if path == "/api/delete" else "POST"
        answer = ask(gateway, NARROW_BOSS, method, path, {**fields, "stream": False})
        assert answer.status == status
        assert seen_by(upstream)[before:] == ([path] if status == 200 else [])

    check_rows(product(("/api/show", "/api/delete", "/api/pull", "/api/push"), DECIDED), check)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/copy", {"source": "tiny-test", "destination": "tiny-test:latest"}, 200),
        ("/api/copy", {"source": "other", "destination": "tiny-test"}, 404),
        ("/api/copy", {"source": "tiny-test", "destination": "other"}, 404),
        ("/api/create", {"model": "tiny-test", "from": "tiny-test"}, 200),
        ("/api/create", {"model": "other", "from": "tiny-test"}, 404),
        ("/api/create", {"model": "tiny-test", "from": "other"}, 404),
    ],
)
def test_every_model_that_a_request_speaks_of_must_be_allowed(
    gateway: LocalGateway, upstream: FaultUpstream, path: str, body: dict[str, Any], status: int
) -> None:
    assert ask(gateway, NARROW_BOSS, "POST", path, body).status == status
    assert seen_by(upstream) == ([path] if status == 200 else [])


@pytest.mark.parametrize("name", ["From", "FROM"])
def test_the_origin_of_a_model_has_one_spelling(
    gateway: LocalGateway, upstream: FaultUpstream, name: str
) -> None:
    assert (
        ask(
            gateway, NARROW_BOSS, "POST", "/api/create", {"model": "tiny-test", name: "other"}
        ).status
        == 400
    )
    assert seen_by(upstream) == []


@pytest.mark.parametrize(
    ("name", "status"),
    [("tiny-test", 200), ("tinyllama:1b", 200), ("qwen3:8b", 200), ("qwen3-coder:30b", 404)],
)
def test_rights_can_be_patterns(gateway: LocalGateway, name: str, status: int) -> None:
    assert ask(gateway, PATTERN, "POST", "/api/chat", {**CHAT, "model": name}).status == status


# Lists.

NAMES = ("tiny-test:latest", "tiny-test:q4", "other:latest", "qwen3:8b", "team/tiny-test:latest")
LISTED = {
    "models": [
        {"name": name, "model": name, "size": 1, "modified_at": "2026-01-01T00:00:00Z"}
        for name in NAMES
    ]
}


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (TEAM, NAMES),
        (NARROW, NAMES[:1]),
        (PATTERN, ("tiny-test:latest", "tiny-test:q4", "qwen3:8b")),
    ],
)
@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/v1/models"])
def test_lists_show_what_the_token_may_use(
    gateway: LocalGateway, upstream: FaultUpstream, token: str, expected: tuple[str, ...], path: str
) -> None:
    for source in ("/api/tags", "/api/ps"):
        upstream.script(source, [do.Json(LISTED)])
    listed = ask(gateway, token, "GET", path).json()
    if path == "/v1/models":
        assert [row["id"] for row in listed["data"]] == [*expected]
    else:
        assert listed["models"] == [row for row in LISTED["models"] if row["name"] in expected]


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
def test_a_list_of_nothing_is_an_empty_list(
    gateway: LocalGateway, upstream: FaultUpstream, path: str
) -> None:
    upstream.script("/api/tags", [do.Json({"models": None})])
    listed = ask(gateway, NARROW, "GET", path).json()
    assert listed.get("models", listed.get("data")) == []


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'"text"', b'{"models":5}', b'{"models":[5,null,{"name":5}]}']
)
def test_a_list_that_cannot_be_read_is_the_upstreams_fault(
    gateway: LocalGateway, upstream: FaultUpstream, path: str, body: bytes
) -> None:
    upstream.script("/api/tags", [do.Whole(body, 200, {"Content-Type": "application/json"})])
    assert_error(ask(gateway, NARROW, "GET", path), dialect_of(path), 502)


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps"])
def test_an_error_in_place_of_a_list_stays_an_error(
    gateway: LocalGateway, upstream: FaultUpstream, path: str
) -> None:
    upstream.script(path, [do.Json({"error": "it broke"}, 500)])
    answer = ask(gateway, NARROW, "GET", path)
    assert (answer.status, answer.json()) == (500, {"error": "it broke"})


@pytest.mark.parametrize(
    ("token", "name", "status"),
    [
        (NARROW, "tiny-test", 200),
        (NARROW, "TINY-TEST:latest", 200),
        (NARROW, "qwen3:8b", 404),
        (TEAM, "qwen3:8b", 200),
    ]
    + [
        (TEAM, "team%2Ftiny-test", 200),
        (TEAM, "team/tiny-test", 200),
        (NARROW, "team/tiny-test", 404),
    ],
)
def test_one_model_is_shown_to_those_who_may_use_it(
    gateway: LocalGateway, upstream: FaultUpstream, token: str, name: str, status: int
) -> None:
    upstream.script("/api/tags", [do.Json(LISTED)])
    answer = ask(gateway, token, "GET", f"/v1/models/{name}")
    assert answer.status == status
    assert status == 404 or answer.json()["id"] == name.replace("%2F", "/")
