"""Clients of Ollama's own API get what a real Ollama said, byte for byte, however the
bytes were cut on their way.

Rows of the recordings on which the gateway decides itself stand in one table, each with
its reason and its answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest

from tests.golden.face import TOKEN, forwarded, local_gateway
from tests.rig.fault_upstream import Json, Lines, Whole
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, Headers, bearer
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import Cut, Recording, ReplayUpstream, Version, recording, recordings
from tests.rig.tables import each_row

NATIVE = tuple(one for one in recordings() if not one.path.startswith("/v1/"))
CUTS: tuple[Cut, ...] = ("recorded", 1 if os.environ.get("ALL_CUTS") else 7)

#: Headers by which a client says who it is; none of them may reach the upstream.
IDENTITY = {
    "Origin": "https://evil.example",
    "Cookie": "session=secret",
    "X-Api-Key": TOKEN,
    "Api-Key": TOKEN,
    "Proxy-Authorization": "Basic c2VjcmV0",
    "X-Forwarded-For": "10.1.2.3",
}


upstream = module_fixture(ReplayUpstream)


gateway = module_fixture(lambda upstream: local_gateway(upstream))


@pytest.fixture(autouse=True)
def clean(upstream: ReplayUpstream) -> None:
    upstream.clear()
    upstream.cut, upstream.edges = "recorded", "chunks"


def ask(gateway: LocalGateway, row: Recording, **more: str) -> Answer:
    headers = bearer(TOKEN) | more
    if row.request:
        headers["Content-Type"] = row.request_content_type
    return gateway.request(row.method, row.path, row.request or None, headers)


@dataclass(frozen=True)
class Decided:
    """What the gateway answers by itself, why, and whether Ollama is asked all the same."""

    reason: str
    check: Callable[[Answer], bool]
    asks_upstream: bool = False
    headers: tuple[tuple[str, str], ...] = ()


def is_success(answer: Answer) -> bool:
    return answer.status == 200 and answer.json() == {"status": "success"}


def is_native_error(status: int, text: str = "") -> Callable[[Answer], bool]:
    def check(answer: Answer) -> bool:
        typed = (answer.headers.get("Content-Type") or "").startswith("application/json")
        error = answer.json()
        return (
            answer.status == status
            and typed
            and list(error) == ["error"]
            and text in error["error"]
        )

    return check


def is_ollama_root(answer: Answer) -> bool:
    return answer.status == 200 and (answer.headers.get("Content-Type") or "").startswith(
        "text/plain"
    )


def is_options(answer: Answer) -> bool:
    return answer.status in (200, 204) and "POST" in (answer.headers.get("Allow") or "")


def is_preflight(answer: Answer) -> bool:
    methods = answer.headers.get("Access-Control-Allow-Methods") or ""
    origin = answer.headers.get("Access-Control-Allow-Origin")
    return (
        answer.status in (200, 204)
        and "POST" in methods
        and origin in ("*", "http://localhost:3000")
    )


def is_hello(answer: Answer) -> bool:
    return answer.status == 200 and answer.body == recording("chat-hello-stream").response


def is_version(answer: Answer) -> bool:
    told = json.loads(recording("version").response)
    return (
        answer.status == 200 and answer.json().items() >= told.items() and "build" in answer.json()
    )


DECIDED = {
    "root-get": Decided("the gateway is there even when no Ollama is", is_ollama_root),
    "root-head": Decided("the gateway is there even when no Ollama is", is_ollama_root),
    "not-found": Decided(
        "unknown addresses are errors in the client's shape", is_native_error(404)
    ),
    "wrong-method": Decided("wrong methods are errors in the client's shape", is_native_error(405)),
    "options-no-origin": Decided("asked without a token, and no business of Ollama's", is_options),
    "preflight-localhost": Decided(
        "the gateway has origins of its own",
        is_preflight,
        headers=(("Origin", "http://localhost:3000"), ("Access-Control-Request-Method", "POST")),
    ),
    "origin-foreign": Decided(
        "Origin is dropped, so Ollama's filter never sees a foreign one",
        is_hello,
        asks_upstream=True,
        headers=(("Origin", "https://evil.example"),),
    ),
    "chat-model-invalid": Decided(
        "names are checked before any rule for models is applied",
        is_native_error(400, "invalid model name"),
    ),
    # Ollama is asked; but so it is by the workers themselves, and nothing of that counts here.
    "version": Decided("the gateway's own version stands beside Ollama's", is_version),
    "copy": Decided(
        "an empty body breaks clients that parse every answer", is_success, asks_upstream=True
    ),
    "delete": Decided(
        "an empty body breaks clients that parse every answer", is_success, asks_upstream=True
    ),
    "delete-name-field": Decided(
        "an empty body breaks clients that parse it", is_success, asks_upstream=True
    ),
    "chat-empty-body": Decided(
        "rights need a model, so it is read first", is_native_error(400, "missing request body")
    ),
    "chat-cut-json": Decided(
        "rights need a model, so it is read first", is_native_error(400, "unexpected EOF")
    ),
    "chat-wrong-type": Decided(
        "rights need a model", is_native_error(400, "cannot unmarshal number into Go struct")
    ),
    "chat-keep-alive-bad": Decided(
        "leases are limited by scope", is_native_error(400, "missing unit in duration")
    ),
    "chat-model-cloud": Decided(
        "cloud models leave the machine", is_native_error(403, "ollama cloud is disabled")
    ),
}
PASSED = tuple(row for row in NATIVE if row.name not in DECIDED)

#: What the recordings since 0.32 have, and the gateway decides itself.
DECIDED_LATER = {
    "me": Decided(
        "the account is the operator's", is_native_error(403, "ollama cloud is disabled")
    ),
    "web-search-no-cloud": Decided(
        "the web is the operator's", is_native_error(403, "ollama cloud is disabled")
    ),
    "recommendations": Decided(
        "nobody installs models of the cloud here",
        lambda answer: answer.status == 200 and answer.json() == {"recommendations": []},
    ),
}
VERSIONS: tuple[Version, ...] = ("0.32", "0.34")
CURRENT = [
    (version, row)
    for version in VERSIONS
    for row in recordings(version)
    if not row.path.startswith("/v1/") and row.name not in DECIDED and row.name not in DECIDED_LATER
]


@each_row("cut", CUTS)
@each_row("row", PASSED)
def test_client_gets_exactly_the_recorded_answer(
    row: Recording, cut: Cut, upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    upstream.cut = cut
    upstream.answer_with(row.name)
    answer = ask(gateway, row)
    recorded = Headers(row.headers)
    assert answer.status == row.status
    assert answer.headers.get("Content-Type") == recorded.get("Content-Type")
    assert answer.body == (b"" if row.method == "HEAD" else row.response)


@each_row(("version", "row"), CURRENT)
def test_client_gets_exactly_what_a_current_ollama_answers(
    version: Version, row: Recording, upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    upstream.clear()
    upstream.answer_with(row.name, version=version)
    answer = ask(gateway, row)
    assert (answer.status, answer.body) == (
        row.status,
        b"" if row.method == "HEAD" else row.response,
    )
    seen = upstream.wait_for_request(path=row.path)
    assert (seen.method, seen.body) == (row.method, row.request)


@each_row("row", PASSED)
def test_upstream_gets_the_bytes_of_the_client_and_nothing_of_who_it_is(
    row: Recording, upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    upstream.clear()
    upstream.answer_with(row.name)
    ask(gateway, row, **IDENTITY)
    seen = upstream.wait_for_request(path=row.path)
    assert (seen.method, seen.body) == (row.method, row.request)
    assert seen.raw_path == row.path
    assert seen.header("Host") == f"127.0.0.1:{upstream.port}"
    sent_on = {name.lower() for name, _ in seen.headers}
    assert not sent_on & {"authorization", *map(str.lower, IDENTITY)}
    assert TOKEN not in str(seen.headers)


@pytest.mark.parametrize("name", DECIDED)
def test_gateway_decides(name: str, upstream: ReplayUpstream, gateway: LocalGateway) -> None:
    row, decided = recording(name), DECIDED[name]
    if name == "origin-foreign":
        upstream.answer_with("chat-hello-stream")
    answer = ask(gateway, row, **dict(decided.headers))
    assert decided.check(answer), (
        f"{decided.reason}: {answer.status} {answer.headers} {answer.body!r}"
    )
    sent_on = [seen for seen in forwarded(upstream) if seen.path == row.path]
    assert len(sent_on) == int(decided.asks_upstream)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", DECIDED_LATER)
def test_gateway_decides_what_the_newer_command_line_asks_at_its_start(
    name: str, version: Version, upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    decided = DECIDED_LATER[name]
    answer = ask(gateway, recording(name, version))
    assert decided.check(answer), f"{decided.reason}: {answer.status} {answer.body!r}"
    assert not forwarded(upstream)


REFUSED = (
    "chat-empty-body",
    "chat-cut-json",
    "chat-wrong-type",
    "chat-keep-alive-bad",
    "chat-model-cloud",
)
#: By version and row: why the gateway's refusal does not have the recorded body yet.
KNOWN = {("0.34", "chat-wrong-type"): "since 0.34, Go calls the field .ChatRequest.model"}


def test_refusals_of_the_gateway_have_the_recorded_body(gateway: LocalGateway) -> None:
    versions: tuple[Version, ...] = ("0.24", *VERSIONS)
    differing = set()
    for version, name in product(versions, REFUSED):
        row = recording(name, version)
        answer = ask(gateway, row)
        if (answer.status, answer.body) != (row.status, row.response):
            differing.add((version, name))
    assert differing == set(KNOWN)


@pytest.mark.parametrize(
    ("name", "method", "path"), [("copy", "POST", "/api/copy"), ("delete", "DELETE", "/api/delete")]
)
def test_failed_copy_and_delete_keep_the_words_of_ollama(
    name: str, method: str, path: str, gateway: LocalGateway
) -> None:
    row = recording(f"{name}-missing")
    answer = ask(gateway, row)
    assert (row.method, row.path, answer.status, answer.body) == (method, path, 404, row.response)


def test_root_and_its_head_have_the_recorded_length(gateway: LocalGateway) -> None:
    assert ask(gateway, recording("root-get")).body == recording("root-get").response
    assert ask(gateway, recording("root-head")).headers.get("Content-Length") == "17"


@pytest.mark.parametrize("status", (200, 404, 500))
def test_headers_of_one_connection_or_one_client_stop_at_the_gateway(
    status: int, upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    """U24: what an upstream says about its own connection, its software or somebody's session."""
    private = [
        ("Set-Cookie", "session=secret"),
        ("Connection", "X-Private"),
        ("X-Private", "yes"),
        ("Keep-Alive", "timeout=5"),
        ("Server", "leaky/1.0"),
        ("X-Public", "yes"),
    ]
    upstream.script(
        "/api/show", [Json({"error": "x"} if status != 200 else {"ok": 1}, status, private)]
    )
    answer = ask(gateway, recording("show"))
    assert answer.status == status
    for gone in ("Set-Cookie", "X-Private", "X-Public"):
        assert answer.headers.get(gone) is None
    assert "leaky" not in str(answer.headers)
    assert "timeout=5" not in str(answer.headers)


def test_a_cookie_of_one_answer_is_not_sent_with_the_next_request(
    upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    upstream.script("/api/show", [Json({"ok": 1}, 200, [("Set-Cookie", "session=first; Path=/")])])
    ask(gateway, recording("show"))
    ask(gateway, recording("show"))
    assert [seen.header("Cookie") for seen in forwarded(upstream) if seen.path == "/api/show"] == [
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nope", 404),
        ("POST", "/api/nope", 404),
        ("GET", "/nope", 404),
        ("GET", "/api/chat", 405),
        ("PUT", "/api/chat", 405),
        ("DELETE", "/api/generate", 405),
        ("POST", "/api/tags", 405),
        ("HEAD", "/api/ps", 405),
        ("GET", "/api/blobs/sha256:" + "0" * 64, 405),
    ],
)
def test_unknown_paths_and_methods_are_json_errors_and_stay_here(
    method: str, path: str, status: int, upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    answer = gateway.request(method, path, None, bearer(TOKEN))
    assert answer.status == status
    assert (answer.headers.get("Content-Type") or "").startswith("application/json")
    if method != "HEAD":
        assert isinstance(answer.json()["error"], str)
    if status == 405:
        assert answer.headers.get("Allow")
    assert not forwarded(upstream)


def test_error_in_mid_stream_is_the_last_line_and_nothing_follows(
    upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    """G01"""
    lines = [{"message": {"role": "assistant", "content": "Hel"}, "done": False}, {"error": "boom"}]
    upstream.script("/api/chat", [Lines(lines)])
    answer = ask(gateway, recording("chat-hello-stream"))
    assert answer.status == 200
    assert answer.body == b"".join(
        json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in lines
    )


def test_stream_without_an_end_gets_an_error_line(
    upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    """G04"""
    line = {"message": {"role": "assistant", "content": "Hel"}, "done": False}
    upstream.script("/api/chat", [Lines([line, line])])
    *passed, last = ask(gateway, recording("chat-hello-stream")).body.split(b"\n")[:-1]
    assert [json.loads(one) for one in passed] == [line, line]
    assert isinstance(json.loads(last)["error"], str)


def test_page_of_a_proxy_in_front_of_ollama_is_a_bad_gateway(
    upstream: ReplayUpstream, gateway: LocalGateway
) -> None:
    upstream.script("/api/chat", [Whole(b"<html>hello</html>", 200, {"Content-Type": "text/html"})])
    answer = ask(gateway, recording("chat-hello-stream"))
    assert is_native_error(502)(answer)
    assert b"<html>" not in answer.body
