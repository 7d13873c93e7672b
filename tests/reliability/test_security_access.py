"""Who gets in, and how far: every route without a token, with a scope too few, and with
SQL in place of a name."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Mapping
from itertools import cycle, product
from typing import Any, NamedTuple

from ollama_proxy.admin import PAGE_SCOPES
from ollama_proxy.server.app import create_app
from ollama_proxy.settings.schema import Settings
from tests.reliability.canaries import written
from tests.reliability.rig import BY_SCOPE, EXPIRED, TOKEN, Rig, Row
from tests.reliability.sweep import Ask, sweep_locally
from tests.rig import fault_upstream as do
from tests.rig import http_client
from tests.rig.calls import DIGEST, EMBEDDINGS, FACES
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.http_client import Answer, bearer
from tests.rig.rules import check_shape

#: Who calls, so that its requests can be told from the gateway's own look at its upstreams.
AGENT = {"User-Agent": "a-client/1"}


def reached(upstream: FaultUpstream) -> list[str]:
    """What the upstream got to see of the row's requests."""
    return [
        f"{seen.method} {seen.raw_path}"
        for seen in upstream.requests
        if seen.method != "GET" or seen.header("user-agent") != "ollama-proxy"
    ]


# S1

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND")
#: What answers without a token, metrics on this machine only, and the only methods of it that do.
PUBLIC = dict.fromkeys(("/", "/health", "/livez", "/readyz", "/metrics"), ("GET", "HEAD"))
UNKNOWN = ("/nope", "/api", "/api/nope", "/v1/nope", "/admin/api/nope", "/adminx", "/favicon.ico")
UNKNOWN += (
    "/anthropic/nope",
    "/static/x.js",
    "/k/",
    "/api/chat/",
    "/v1/audio/transcriptions",
    "/health/x",
)


#: Those that are asked at the door of the row as well.
SEEN = (*PUBLIC, "/nope", "/api/tags", "/api/chat", "/v1/models", "/v1/messages", "/admin/api/me")


def addresses() -> list[str]:
    """One address for every route that the application has, but for pages (S5), and
    some that it has not."""
    rules = [
        str(rule)
        for rule in create_app(Settings()).url_map.iter_rules()
        if rule.endpoint not in PAGE_SCOPES
    ]
    return sorted(
        {re.sub(r"<(path:)?\w+>", "x", rule.replace("<path:digest>", DIGEST)) for rule in rules}
        | {*UNKNOWN}
    )


def let_in(ask: Ask, method: str, path: str, headers: Mapping[str, str], status: int) -> str | None:
    """How a request without a good token was not answered with this status, if it was not."""
    answer = ask(method, path, None, {**headers, **AGENT})
    if answer.status >= 400 and method != "HEAD":
        check_shape(answer, path)
    return None if answer.status == status else f"{method} {path} {headers}: {answer.status}"


def test_s1_nothing_but_health_without_a_token(row: Row) -> None:
    """Every route and method, also those that don't exist: 401 without a token and
    with none that is good."""
    wrong = cycle([("", bearer("sk-unknown")), ("", {"x-api-key": EXPIRED}), ("/k/sk-unknown", {})])
    cases = []
    for path, method in product(addresses(), METHODS):
        status = 200 if method in PUBLIC.get(path, ()) else 401
        for prefix, headers in (("", {}), next(wrong)):
            cases.append((method, prefix + path, headers, status))
    # A gateway in this process has no metrics.
    local = [case for case in cases if not case[1].endswith("/metrics")]
    seen = [case for case in cases if case[1] in SEEN or case not in local]
    assert sweep_locally(row, let_in, local, seen) == []
    assert reached(row.upstream) == []
    row.measured("refused", len(cases), "requests")


# S2

SQL = (
    "' OR '1'='1",
    "'; DROP TABLE tokens; --",
    '" UNION SELECT digest FROM tokens --',
    "1); ATTACH DATABASE '/tmp/x' AS x; --",
    "%' OR name LIKE '%",
    "team' --",
    "\\'; PRAGMA writable_schema=1; --",
)
HARMLESS = "nothing of this name"


CONSTANT_PATHS = {"/api/chat", "/api/generate", "/api/embed", "/api/show", "/api/tags"}


def sql_requests(text: str) -> dict[str, tuple[str, str, Any, dict[str, str], str | None]]:
    """A text in every place where a request has one: method, path, body, headers, token."""
    plain, quoted = text.replace("\\", ""), urllib.parse.quote(text, safe="")
    password = base64.b64encode(f"x:{text}".encode()).decode()
    places: dict[str, tuple[str, str, Any, dict[str, str], str | None]] = {
        "bearer": ("GET", "/api/tags", None, {"Authorization": f"Bearer {text}"}, None),
        "bare": ("GET", "/v1/models", None, {"Authorization": text}, None),
        "api key": ("POST", "/v1/messages", {}, {"x-api-key": text}, None),
        "password": ("GET", "/api/tags", None, {"Authorization": f"Basic {password}"}, None),
        "token in the path": ("GET", f"/k/{quoted}/api/tags", None, {}, None),
        "query": ("GET", f"/api/tags?name={quoted}&date={quoted}&token={quoted}", None, {}, TOKEN),
        "name of a blob": ("HEAD", f"/api/blobs/{quoted}", None, {}, TOKEN),
        "name in the path": ("GET", f"/v1/models/{quoted}", None, {}, TOKEN),
        "stored answer": ("GET", f"/v1/responses/{quoted}", None, {}, TOKEN),
        "id": ("GET", "/api/version", None, {"X-Request-Id": text}, TOKEN),
        "copy": ("POST", "/api/copy", {"source": text, "destination": text}, {}, BY_SCOPE["read"]),
        "pull": ("POST", "/api/pull", {"model": f"{text}:cloud"}, {}, TOKEN),
        "show": ("POST", "/api/show", {"name": text}, {}, TOKEN),
        "date": (
            "POST",
            "/api/chat",
            {**FACES["native chat"].body, "stream": False, "created_at": text},
            {},
            TOKEN,
        ),
        # Behind an x: what a duration may begin with is told apart from what it may not.
        "lease": (
            "POST",
            "/api/chat",
            {**FACES["native chat"].body, "keep_alive": f"x{text}"},
            {},
            TOKEN,
        ),
        "address": ("GET", "/api/version", None, {"X-Forwarded-For": plain}, TOKEN),
    }
    for name, face in {**FACES, **EMBEDDINGS}.items():
        places[f"model, {name}"] = (
            "POST",
            face.path,
            {**face.body, "stream": False, "model": text},
            {},
            TOKEN,
        )
        places[f"user, {name}"] = (
            "POST",
            face.path,
            {**face.body, "stream": False, "user": text},
            {},
            TOKEN,
        )
    return places


def outcome(answer: Answer, text: str) -> tuple[int, str]:
    """Status and body, without what they quote and what is new in each."""
    said = answer.text
    in_json = json.dumps(text, ensure_ascii=False)[1:-1]
    # In a text of Ollama's that quotes it once more.
    quoted = json.dumps(in_json, ensure_ascii=False)[1:-1]
    for form in (quoted, in_json, text, urllib.parse.quote(text, safe="")):
        said = said.replace(form, "TEXT")
    said = re.sub(r'"(id|request_id|user|created|created_at|item_id)": ?("[^"]*"|[\d.]+)', "", said)
    return answer.status, re.sub(r"\d+\.\d+|\b1\d{9}\b", "", said)


def state_of(rig: Rig) -> dict[str, str]:
    """Everything that is kept."""
    return written([rig.gateway.state_directory])


def test_s2_sql_is_a_text_like_any_other(row: Row) -> None:
    """In each field, by each form of a token: the answer is that to any wrong text, and what
    is kept stays as it is."""
    kept = state_of(row.rig)
    expected = {place: ask_sql(row, request) for place, request in sql_requests(HARMLESS).items()}
    for text in SQL:
        for place, request in sql_requests(text).items():
            answer = ask_sql(row, request)
            assert outcome(answer, text) == outcome(expected[place], HARMLESS), (place, text)
            assert answer.status < 500
    assert {path.partition(" ")[2] for path in reached(row.upstream)} <= CONSTANT_PATHS
    assert state_of(row.rig) == kept
    assert row.ask("GET", "/api/tags").status == 200


def ask_sql(row: Row, request: tuple[str, str, Any, dict[str, str], str | None]) -> Answer:
    method, path, body, headers, token = request
    if "X-Request-Id" in headers:
        return http_client.request(row.url, method, path, body, {**headers, **bearer(TOKEN)})
    return row.ask(method, path, body, {**headers, **AGENT}, token=token)


# S17


class Documented(NamedTuple):
    """A route of Ollama's documents or of the APIs that it copies, and the scope it
    needs; None: nobody may."""

    method: str
    path: str
    scope: str | None
    body: Any = None


M = {"model": "m"}
ROUTES = (
    Documented("GET", "/api/version", "read"),
    Documented("HEAD", "/api/version", "read"),
    Documented("GET", "/api/status", "read"),
    Documented("GET", "/api/tags", "read"),
    Documented("HEAD", "/api/tags", "read"),
    Documented("GET", "/api/ps", "read"),
    Documented("POST", "/api/show", "read", M),
    Documented("GET", "/api/show", "read", M),
    *(
        Documented("POST", face.path, "generate", {**face.body, "stream": False})
        for face in FACES.values()
    ),
    *(Documented("POST", face.path, "generate", face.body) for face in EMBEDDINGS.values()),
    Documented("POST", "/api/embeddings", "generate", {**M, "prompt": "hi"}),
    Documented("POST", "/anthropic/v1/messages", "generate", FACES["anthropic messages"].body),
    Documented("POST", "/v1/messages/count_tokens", "generate", FACES["anthropic messages"].body),
    Documented(
        "POST", "/anthropic/v1/messages/count_tokens", "generate", FACES["anthropic messages"].body
    ),
    Documented("GET", "/v1/models", "read"),
    Documented("GET", "/v1/models/m", "read"),
    Documented("GET", "/v1/responses/resp_1", "read"),
    Documented("GET", "/v1/conversations/conv_1", "read"),
    Documented("POST", "/v1/conversations", "read", {}),
    Documented("POST", "/api/pull", "manage", {**M, "stream": False}),
    Documented("POST", "/api/push", "manage", {**M, "stream": False}),
    Documented("POST", "/api/create", "manage", {**M, "from": "m", "stream": False}),
    Documented("POST", "/api/copy", "manage", {"source": "m", "destination": "m2"}),
    Documented("DELETE", "/api/delete", "manage", M),
    Documented("HEAD", f"/api/blobs/{DIGEST}", "manage"),
    Documented("POST", f"/api/blobs/{DIGEST}", "manage", b"bytes"),
    Documented("POST", "/api/me", None, {}),
    Documented("POST", "/api/signout", None, {}),
    Documented("DELETE", "/api/user/keys/abc", None),
    Documented("POST", "/api/experimental/web_search", None, {"query": "x"}),
    Documented("POST", "/api/experimental/web_fetch", None, {"url": "http://127.0.0.1/"}),
    Documented("GET", "/api/experimental/model-recommendations", "read"),
    Documented("POST", "/api/web_search", None, {"query": "x"}),
    Documented("POST", "/api/web_fetch", None, {"url": "http://127.0.0.1/"}),
    Documented("POST", "/v1/audio/transcriptions", "generate", b"RIFF"),
    Documented("POST", "/v1/audio/speech", None, {**M, "input": "x"}),
    Documented("POST", "/v1/images/generations", None, {**M, "prompt": "x"}),
    Documented("DELETE", "/v1/models/m", None),
)
CLOUD = (
    "gpt-oss:cloud",
    "gpt-oss:120b-cloud",
    "GPT-OSS:120B-Cloud",
    "registry.ollama.ai/library/gpt-oss:120b-cloud",
)


def test_s17_every_documented_route_has_its_scope_or_is_refused(row: Row) -> None:
    """The right scope lets in, each other one is 403 without contact; account, web
    and cloud are nobody's."""
    row.allow(501, 502, 503)
    wrong = []
    for route in ROUTES:
        for scope, token in BY_SCOPE.items():
            row.upstream.clear()
            row.upstream.script(route.path, [do.Json({"status": "success"})])
            may = scope == route.scope
            # What every box is asked for has an answer of its own shape.
            shape = "any" if may and scope == "manage" else None
            status = row.ask(
                route.method, route.path, route.body, AGENT, token=token, dialect=shape
            ).status
            refusals = (403,) if route.scope else (403, 404, 405)
            is_refused = status in refusals and not reached(row.upstream)
            if is_refused if may else not is_refused:
                wrong.append((route.method, route.path, scope, status, reached(row.upstream)))
    assert wrong == []
    assert endpoints_without_a_row() == set()
    for route in ROUTES:
        for name in CLOUD if isinstance(route.body, Mapping) and "model" in route.body else ():
            row.upstream.clear()
            answer = row.ask(route.method, route.path, {**route.body, "model": name}, AGENT)
            assert (answer.status in (403, 404), reached(row.upstream)) == (True, []), (
                route.path,
                name,
            )
    check_admin_api(row)  # where nothing is recorded, 503 is the answer to who may ask


#: Routes of the admin API on which any token finds what is its own.
OWN = ("/admin/api/me", "/admin/api/me/usage", "/admin/api/me/requests")


def check_admin_api(row: Row) -> None:
    """Every route of the admin API needs its scope: without it 403 whatever is asked
    for, without a token 401."""
    rules = [
        rule
        for rule in create_app(Settings()).url_map.iter_rules()
        if rule.rule.startswith("/admin/api")
    ]
    assert len(rules) > 15
    wrong = []
    for rule in rules:
        path = re.sub("<[^>]*>", "x", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            body = None if method in ("GET", "DELETE") else {}
            statuses = {
                scope: row.ask(method, path, body, token=token).status
                for scope, token in BY_SCOPE.items()
            }
            statuses["nobody"] = row.ask(method, path, body, token=None).status
            refused = {name for name, status in statuses.items() if status in (401, 403)}
            # `manage` implies `admin`, as there are no admin_tokens.
            allowed = set(BY_SCOPE) if path in OWN else {"admin", "manage"}
            if refused != statuses.keys() - allowed or statuses["nobody"] != 401:
                wrong.append((method, path, statuses))
    assert wrong == []


def endpoints_without_a_row() -> set[str]:
    """What the application answers, and the table above does not know; see
    check_admin_api for its routes."""
    app = create_app(Settings())
    known = set()
    for route in ROUTES:
        adapter = app.url_map.bind("gw")
        if adapter.test(route.path, route.method):
            known.add(str(adapter.match(route.path, route.method)[0]))
    return {
        name for name in app.view_functions if not name.startswith(("ops.", "metrics.", "admin-"))
    } - known
