"""Requests that are malformed, hostile or ambiguous, as raw bytes: refused or read in exactly one way, never a 500."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import fault_upstream as do
from tests.rig.checked import checked_gateway
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, encode_request, raw, request

TOKEN = "sk-team-token-1"
CHAT = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": False}
NATIVE_CHAT, OPENAI_CHAT, ANTHROPIC_CHAT = "/api/chat", "/v1/chat/completions", "/v1/messages"
CHATS = (NATIVE_CHAT, OPENAI_CHAT, ANTHROPIC_CHAT)
MODEL_ROUTES = (
    *(f"/api/{name}" for name in ("chat", "generate", "embed", "embeddings", "show", "pull", "push", "create", "copy")),
    *(f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "responses")),
    *("/v1/messages", "/v1/messages/count_tokens", "/anthropic/v1/messages"),
)
KELVIN, LONG_S = "\u212a", "\u017f"


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    with checked_gateway(
        {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": shared_upstream.url}},
        shared_upstream,
        TOKEN,
        unsaid=("Traceback",),
    ) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: FaultUpstream) -> FaultUpstream:
    """The gateway's upstream, healthy again; it shows every model whatever the bytes of the request."""
    shared_upstream.clear()
    shared_upstream.script("/api/show", [do.Json({"model_info": {}})])
    return shared_upstream


def post(gateway: Gateway, path: str, body: bytes | dict[str, Any], **headers: str) -> Answer:
    return request(gateway.url, "POST", path, body, {**bearer(TOKEN), **headers})


def posts_seen(upstream: FaultUpstream) -> list[bytes]:
    """The bodies of all POST requests that reached the upstream."""
    return [seen.body for seen in upstream.requests if seen.method == "POST"]


# Request smuggling.

INNER = encode_request("gw", "POST", "/api/show", {"model": "smuggled"}, {**bearer(TOKEN), "Connection": "keep-alive"})
MARKER = encode_request("gw", "POST", "/api/show", {"model": "marker"}, bearer(TOKEN))
FIRST = b'{"model":"first"}'


def ambiguous(*headers: bytes, body: bytes, version: bytes = b"1.1") -> bytes:
    """A request for /api/show with exactly these framing headers."""
    head = [b"POST /api/show HTTP/" + version, b"Host: gw", b"Authorization: Bearer " + TOKEN.encode(), *headers]
    return b"\r\n".join([*head, b"", b""]) + body


def length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CHUNKED = b"Transfer-Encoding: chunked"
ENDS_EARLY = b"0\r\n\r\n" + INNER
HIDDEN = FIRST + INNER

SMUGGLING: dict[str, bytes] = {
    "length and chunked": ambiguous(length(ENDS_EARLY), CHUNKED, body=ENDS_EARLY),
    "chunked and length": ambiguous(CHUNKED, length(ENDS_EARLY), body=ENDS_EARLY),
    "short length and chunked": ambiguous(b"Content-Length: 4", CHUNKED, body=chunks(INNER)),
    "two lengths": ambiguous(b"Content-Length: 17", length(HIDDEN), body=HIDDEN),
    "two lengths, the longer first": ambiguous(length(HIDDEN), b"Content-Length: 17", body=HIDDEN),
    "two equal lengths": ambiguous(length(HIDDEN), length(HIDDEN), body=HIDDEN),
    "list of lengths": ambiguous(b"Content-Length: 17, %d" % len(HIDDEN), body=HIDDEN),
    "signed length": ambiguous(b"Content-Length: +17", body=HIDDEN),
    "negative length": ambiguous(b"Content-Length: -17", body=HIDDEN),
    "hexadecimal length": ambiguous(b"Content-Length: 0x11", body=HIDDEN),
    "length with underscore": ambiguous(b"Content-Length: 1_7", body=HIDDEN),
    "length in other digits": ambiguous("Content-Length: \u0661\u0667".encode(), body=HIDDEN),
    "length with a word": ambiguous(b"Content-Length: 17 bytes", body=HIDDEN),
    "empty length": ambiguous(b"Content-Length:", body=INNER),
    "xchunked": ambiguous(b"Transfer-Encoding: xchunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "chunked twice": ambiguous(CHUNKED, CHUNKED, body=ENDS_EARLY),
    "chunked, identity": ambiguous(b"Transfer-Encoding: chunked, identity", length(ENDS_EARLY), body=ENDS_EARLY),
    "identity, chunked": ambiguous(b"Transfer-Encoding: identity, chunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "gzip, chunked": ambiguous(b"Transfer-Encoding: gzip, chunked", body=chunks(FIRST)),
    "vertical tab": ambiguous(b"Transfer-Encoding: \x0bchunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "quoted coding": ambiguous(b'Transfer-Encoding: "chunked"', length(ENDS_EARLY), body=ENDS_EARLY),
    "space before colon": ambiguous(b"Transfer-Encoding : chunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "tab before colon": ambiguous(b"Transfer-Encoding\t: chunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "space before name": ambiguous(b" Transfer-Encoding: chunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "folded line": ambiguous(b"Transfer-Encoding:\r\n chunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "bare LF": ambiguous(b"X: y\nTransfer-Encoding: chunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "bare CR": ambiguous(b"X: y\rTransfer-Encoding: chunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "NUL": ambiguous(b"X: y\0", CHUNKED, length(ENDS_EARLY), body=ENDS_EARLY),
    "underscore twins": ambiguous(b"Transfer_Encoding: chunked", length(ENDS_EARLY), body=ENDS_EARLY),
    "underscore length": ambiguous(b"Content_Length: 17", length(HIDDEN), body=HIDDEN),
    "chunked in HTTP/1.0": ambiguous(CHUNKED, length(ENDS_EARLY), body=ENDS_EARLY, version=b"1.0"),
    "chunk size with sign": ambiguous(CHUNKED, body=b"+11\r\n" + FIRST + b"\r\n" + ENDS_EARLY),
    "chunk size with prefix": ambiguous(CHUNKED, body=b"0x11\r\n" + FIRST + b"\r\n" + ENDS_EARLY),
    "chunk size with underscore": ambiguous(CHUNKED, body=b"1_1\r\n" + FIRST + b"\r\n" + ENDS_EARLY),
    "huge chunk": ambiguous(CHUNKED, body=b"fffffffffffffffff\r\n" + INNER),
    "chunk without its end": ambiguous(CHUNKED, body=b"11\r\n" + FIRST + b"XX" + ENDS_EARLY),
    "extension with bare LF": ambiguous(CHUNKED, body=b"11;a\n" + FIRST + b"\r\n" + ENDS_EARLY),
}

#: Unusual, and readable in one way only.
ODD_BUT_PLAIN: dict[str, bytes] = {
    "extensions": ambiguous(CHUNKED, body=b'11;name=value;q="' + b"x" * 50 + b'"\r\n' + FIRST + b"\r\n0\r\n\r\n"),
    "trailers": ambiguous(CHUNKED, body=b"11\r\n" + FIRST + b"\r\n0\r\nAuthorization: Bearer x\r\nX: y\r\n\r\n"),
    "length in a trailer": ambiguous(CHUNKED, body=b"11\r\n" + FIRST + b"\r\n0\r\nContent-Length: 500\r\n\r\n"),
    "leading zeros": ambiguous(CHUNKED, body=b"00011\r\n" + FIRST + b"\r\n000\r\n\r\n"),
    "body that looks like a request": ambiguous(length(HIDDEN), body=HIDDEN),
    "coding in capitals": ambiguous(b"Transfer-Encoding: CHUNKED", body=chunks(FIRST)),
}


def assert_not_smuggled(answer: bytes, upstream: FaultUpstream) -> None:
    """What follows an ambiguous request was never taken for a request of its own."""
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
    assert all(status in (200, 400, 404, 501, 505) for status in statuses), statuses
    assert b'"smuggled"' not in b"".join(body for body in posts_seen(upstream) if not body.startswith(FIRST))
    assert len(posts_seen(upstream)) == statuses.count(200)


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_a_request_with_two_readings_has_none(gateway: Gateway, upstream: FaultUpstream, data: bytes) -> None:
    answer = raw(gateway.port, data + MARKER, quiet_s=0.3, timeout=2, half_close=True)
    assert_not_smuggled(answer, upstream)
    assert post(gateway, "/api/show", {"model": "after"}).status == 200


@pytest.mark.parametrize("data", ODD_BUT_PLAIN.values(), ids=ODD_BUT_PLAIN.keys())
def test_an_odd_request_is_one_request_or_refused(gateway: Gateway, upstream: FaultUpstream, data: bytes) -> None:
    answer = raw(gateway.port, data + MARKER, quiet_s=0.3, timeout=2, half_close=True)
    assert_not_smuggled(answer, upstream)
    assert [body[:17] for body in posts_seen(upstream)] in ([FIRST, b'{"model": "marker'], [])


UNREAD = {
    "wrong token": ("POST", "/api/show", "wrong", {}),
    "unknown address": ("POST", "/nope", TOKEN, {}),
    "wrong method": ("PUT", "/api/show", TOKEN, {}),
    "multipart": ("POST", "/api/show", TOKEN, {"Content-Type": "multipart/form-data"}),
    "refused route": ("POST", "/api/me", TOKEN, {}),
    "no body expected": ("GET", "/api/tags", TOKEN, {}),
    "public page": ("GET", "/livez", TOKEN, {}),
    "options": ("OPTIONS", "/api/show", TOKEN, {}),
}


@pytest.mark.parametrize(("method", "path", "token", "headers"), UNREAD.values(), ids=UNREAD.keys())
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_a_body_that_nobody_wanted_is_never_the_next_request(
    gateway: Gateway,
    upstream: FaultUpstream,
    method: str,
    path: str,
    token: str,
    headers: dict[str, str],
    framing: str,
) -> None:
    more = {"Transfer-Encoding": "chunked"} if framing == "chunked" else {}
    body = chunks(INNER) if framing == "chunked" else INNER
    sent = {**bearer(token), "Connection": "keep-alive", **headers, **more}
    answer = raw(gateway.port, encode_request("gw", method, path, body, sent) + MARKER, quiet_s=0.3)
    assert answer.startswith(b"HTTP/1.1 ")
    assert posts_seen(upstream) in ([], [b'{"model": "marker"}'])


def test_two_plain_requests_on_one_connection_are_two(gateway: Gateway, upstream: FaultUpstream) -> None:
    answer = raw(gateway.port, INNER + MARKER)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert [json.loads(body)["model"] for body in posts_seen(upstream)] == ["smuggled", "marker"]


# Methods, hosts, headers.


@pytest.mark.parametrize("method", ["FOO", "TRACE", "PROPFIND", "M-SEARCH", "get", "CONNECT"])
def test_unknown_methods_are_refused(gateway: Gateway, upstream: FaultUpstream, method: str) -> None:
    answer = request(gateway.url, method, "/api/tags", headers=bearer(TOKEN))
    assert answer.status in (400, 405)
    assert not [seen for seen in upstream.requests if seen.path == "/api/tags"]


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT gw:443 HTTP/1.1\r\nHost: gw:443\r\nAuthorization: Bearer %b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %b\r\n\r\n",
    ],
)
def test_requests_for_no_path_are_refused(gateway: Gateway, data: bytes) -> None:
    answer = raw(gateway.port, data.replace(b"%b", TOKEN.encode()), quiet_s=0.3)
    assert answer.split()[1] in (b"400", b"404", b"405", b"505")


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"},
    ],
)
def test_a_connection_is_never_switched(gateway: Gateway, upstream: FaultUpstream, headers: dict[str, str]) -> None:
    assert request(gateway.url, "GET", "/api/tags", headers={**bearer(TOKEN), **headers}).status in (200, 400, 405)
    assert [seen.header("upgrade") for seen in upstream.requests if seen.path == "/api/tags"] in ([], [None])


BAD_HOSTS = [None, "", " ", "gw/api", "user@gw", "gw:port", "gw:", "[::1", "::1", "gw?x", "gw#x", "gw,other", "<gw>"]
GOOD_HOSTS = ["gw", "gw.example:8080", "127.0.0.1", "192.0.2.7:1", "[::1]:8080", "evil.example", "GW", "xn--b.example"]


def with_host(gateway: Gateway, host: str | None, token: str) -> bytes:
    line = b"" if host is None else b"Host: " + host.encode() + b"\r\n"
    head = b"GET /api/tags HTTP/1.1\r\n" + line + b"Connection: close\r\nAuthorization: Bearer " + token.encode()
    return raw(gateway.port, head + b"\r\n\r\n").split(b" ", 2)[1]


@pytest.mark.parametrize("host", BAD_HOSTS)
@pytest.mark.parametrize("token", [TOKEN, "wrong"])
def test_a_missing_or_malformed_host_is_400(
    gateway: Gateway, upstream: FaultUpstream, host: str | None, token: str
) -> None:
    assert with_host(gateway, host, token) == b"400"
    assert not [seen for seen in upstream.requests if seen.path == "/api/tags"]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_the_host_changes_nothing_about_rights(gateway: Gateway, host: str) -> None:
    assert (with_host(gateway, host, TOKEN), with_host(gateway, host, "wrong")) == (b"200", b"401")


def test_two_hosts_are_400(gateway: Gateway) -> None:
    data = b"GET /api/tags HTTP/1.1\r\nHost: gw\r\nHost: other\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
    assert raw(gateway.port, data).split()[1] == b"400"


def test_only_listed_hosts_are_served_and_strangers_not_believed(upstream: FaultUpstream) -> None:
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "service": {"base_url": upstream.url},
        "server": {"allowed_hosts": ["gw.example", "127.0.0.1"], "trusted_proxies": ["192.0.2.1"]},
    }
    with Gateway(config, workers=1) as running:
        hosts = ("gw.example", "GW.EXAMPLE:99", "evil.example", "gw.example.evil", "127.0.0.1", "localhost")
        expected = [b"200", b"200", b"400", b"400", b"200", b"400"]
        assert [with_host(running, host, TOKEN) for host in hosts] == expected
        forged = {**bearer(TOKEN), "X-Forwarded-For": "6.6.6.6", "X-Request-Id": "forged"}
        assert request(running.url, "GET", "/api/tags", headers={**forged, "Host": "gw.example"}).status == 200
        lines = running.log_lines("access", at_least=len(hosts) + 2)
        assert [line["client"] for line in lines if line["id"] == "forged"] == ["127.0.0.1"]


MOVERS = {
    "SCRIPT_NAME": "/foo",
    "Script-Name": "/foo",
    "PATH_INFO": "/api/tags",
    "Path-Info": "/api/tags",
    "X-Forwarded-Prefix": "/foo",
    "X-Forwarded-Uri": "/api/tags",
    "X-Forwarded-Path": "/api/tags",
    "X-Original-URL": "/api/tags",
    "X-Rewrite-URL": "/api/tags",
    "X-HTTP-Method-Override": "GET",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=https",
    "X-Real-IP": "6.6.6.6",
    "REMOTE_USER": "admin",
    "REMOTE-ADDR": "6.6.6.6",
}


@pytest.mark.parametrize("name", MOVERS)
@pytest.mark.parametrize(("path", "token", "status"), [("/foo/api/tags", TOKEN, 404), ("/api/tags", "wrong", 401)])
def test_headers_move_neither_paths_nor_rights(
    gateway: Gateway, upstream: FaultUpstream, name: str, path: str, token: str, status: int
) -> None:
    answer = request(gateway.url, "GET", path, headers={**bearer(token), name: MOVERS[name], "X-Request-Id": "moved"})
    assert answer.status == status
    assert not [seen for seen in upstream.requests if seen.path == "/api/tags"]


# JSON.

NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "list": b"[]",
    "null": b"null",
    "text": b'"text"',
    "number": b"5",
    "true": b"true",
    "cut": b'{"model":"tiny-test"',
    "single quotes": b"{'model':'tiny-test'}",
    "form": b"model=tiny-test&stream=false",
    "invalid UTF-8": b'{"model":"tiny-test","x":"\xff"}',
    "overlong UTF-8": b'{"model":"tiny-test","x":"\xc0\xaf"}',
    "lone surrogate": b'{"model":"tiny-test","x":"\\ud800"}',
    "encoded surrogate": b'{"model":"tiny-test","x":"\xed\xa0\x80"}',
    "NUL": b'{"model":"tiny-test","x":"\0"}',
    "BOM": b'\xef\xbb\xbf{"model":"tiny-test"}',
    "UTF-16": '{"model":"tiny-test"}'.encode("utf-16"),
    "UTF-32": '{"model":"tiny-test"}'.encode("utf-32-le"),
    "NaN": b'{"model":"tiny-test","x":NaN}',
    "Infinity": b'{"model":"tiny-test","options":{"temperature":Infinity}}',
    "1e999": b'{"model":"tiny-test","keep_alive":1e999}',
    "5,000 digits": b'{"model":"tiny-test","keep_alive":' + b"9" * 5000 + b"}",
    "arrays 100,000 deep": b'{"model":"tiny-test","x":' + b"[" * 100_000,
    "closed arrays 100,000 deep": b'{"model":"tiny-test","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects 100,000 deep": b'{"model":"tiny-test","x":' + b'{"a":' * 100_000,
    "1,020 deep with an escape": b'{"model":"\\u0074","x":' + b"[" * 1020 + b"]" * 1020 + b",}",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
@pytest.mark.parametrize("path", MODEL_ROUTES)
def test_what_is_not_a_json_object_is_400_at_once(
    gateway: Gateway, upstream: FaultUpstream, path: str, body: bytes
) -> None:
    began = time.monotonic()
    text = assert_error(post(gateway, path, body), dialect_of(path), 400)
    assert time.monotonic() - began < 1
    assert "tiny-test" not in text
    assert posts_seen(upstream) == []


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("depth", [990, 1000, 1010, 1020, 1023])
def test_deep_json_with_escapes_is_no_failure_of_the_gateway(gateway: Gateway, path: str, depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    answer = post(gateway, path, json.dumps(CHAT).encode()[:-1] + b',"\\u0078":' + deep + b"}")
    assert answer.status in (200, 400)


@pytest.mark.parametrize("path", CHATS)
def test_a_key_that_means_something_to_the_gateway_alone_is_just_a_key(gateway: Gateway, path: str) -> None:
    assert post(gateway, path, json.dumps({**CHAT, "\0twice": 5}).encode()).status == 200


@pytest.mark.parametrize("path", CHATS)
def test_a_hundred_thousand_equal_keys_do_not_stop_the_worker(gateway: Gateway, path: str) -> None:
    began = time.monotonic()
    body = json.dumps(CHAT).encode()[:-1] + b',"\\u0061":1' + b',"a":1' * 100_000 + b"}"
    assert post(gateway, path, body).status in (200, 400)
    assert time.monotonic() - began < 2


TAILS = [b"garbage", b"{}", b"}", b"]", b"\0", b'{"model":"other"}', b"\n# comment"]


@pytest.mark.parametrize("tail", TAILS)
def test_bytes_behind_the_object_are_ignored_natively_as_ollama_does(
    gateway: Gateway, upstream: FaultUpstream, tail: bytes
) -> None:
    upstream.script(NATIVE_CHAT, [do.Json({"message": {"role": "assistant", "content": "hi"}, "done": True})])
    body = json.dumps(CHAT).encode() + tail
    assert post(gateway, NATIVE_CHAT, body).status == 200
    assert posts_seen(upstream) == [body]
    for path in (OPENAI_CHAT, ANTHROPIC_CHAT):
        assert_error(post(gateway, path, body), dialect_of(path), 400)


def spelled(name: str) -> list[str]:
    """JSON texts of keys that Go's decoder takes for `name`, each beside the plain one or in its place."""
    escaped = f"\\u{ord(name[0]):04x}{name[1:]}"
    folded = name.replace("k", KELVIN).replace("s", LONG_S)
    others = [name.upper(), name.title(), name[:-1] + name[-1].upper(), f"\\u{ord(name[0].upper()):04x}{name[1:]}"]
    return [escaped, *others, *([folded] if folded != name else [])]


NATIVE_FIELDS = ("model", "stream", "messages", "options", "keep_alive")
OPENAI_FIELDS = ("model", "stream", "messages", "keep_alive", "tools", "n")
ANTHROPIC_FIELDS = ("model", "stream", "messages", "system", "keep_alive", "tools")
RESPONSE_FIELDS = ("model", "stream", "input", "keep_alive", "tools")
DOUBLES = [(NATIVE_CHAT, name, key) for name in NATIVE_FIELDS for key in (name, *spelled(name))]
DOUBLES += [(OPENAI_CHAT, name, key) for name in OPENAI_FIELDS for key in (name, *spelled(name))]
DOUBLES += [("/v1/messages", name, key) for name in ANTHROPIC_FIELDS for key in (name, *spelled(name))]
DOUBLES += [("/v1/responses", name, key) for name in RESPONSE_FIELDS for key in (name, *spelled(name))]
DOUBLES += [("/api/show", "name", key) for key in ("name", *spelled("name"))]
DOUBLES += [("/api/copy", name, key) for name in ("source", "destination") for key in (name, *spelled(name))]
DOUBLES += [("/api/generate", "prompt", key) for key in ("prompt", *spelled("prompt"))]


@pytest.mark.parametrize(("path", "name", "key"), DOUBLES)
@pytest.mark.parametrize("order", ["before", "behind"])
def test_a_decisive_field_is_never_there_twice(
    gateway: Gateway, upstream: FaultUpstream, path: str, name: str, key: str, order: str
) -> None:
    pairs = [f'"{name}":null', f'"{key}":null']
    body = "{" + ",".join(pairs if order == "behind" else reversed(pairs)) + ',"x":1}'
    assert name in assert_error(post(gateway, path, body.encode()), dialect_of(path), 400)
    assert posts_seen(upstream) == []


ALONE = [each for each in DOUBLES if each[1] != each[2] and "\\" not in each[2]]


@pytest.mark.parametrize(("path", "name", "key"), ALONE)
def test_a_decisive_field_in_another_case_is_refused_alone_too(
    gateway: Gateway, upstream: FaultUpstream, path: str, name: str, key: str
) -> None:
    whole = {**CHAT, "prompt": "hi", "source": "a", "destination": "b"}
    if path == "/v1/responses":
        whole = {"model": MODEL, "input": "hi"}
    body = {field: value for field, value in whole.items() if field != name}
    assert name in assert_error(post(gateway, path, {**body, key: None}), dialect_of(path), 400)
    assert posts_seen(upstream) == []


TYPES = ["application/json", "text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "x", ""]


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("media", TYPES)
def test_json_is_read_whatever_curl_calls_it(gateway: Gateway, path: str, media: str) -> None:
    headers = {"Content-Type": media} if media else {}
    assert post(gateway, path, json.dumps(CHAT).encode(), **headers).status == 200
    assert post(gateway, path, b"junk", **headers).status == 400


# Bodies that do not come whole.


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (b"Content-Length: 1000", json.dumps(CHAT).encode()),
        (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(json.dumps(CHAT)), json.dumps(CHAT).encode())),
        (b"Transfer-Encoding: chunked", b"fff\r\n" + json.dumps(CHAT).encode()),
        (b"Transfer-Encoding: chunked", b"zz\r\n" + json.dumps(CHAT).encode()),
    ],
    ids=["length", "between chunks", "inside a chunk", "no chunk at all"],
)
def test_a_body_that_stops_in_its_middle_is_never_sent_on(
    gateway: Gateway, upstream: FaultUpstream, path: str, framing: bytes, sent: bytes
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %b\r\n" % (path.encode(), TOKEN.encode())
    answer = raw(gateway.port, head + framing + b"\r\n\r\n" + sent, half_close=True)
    assert answer.split()[1] == b"400"
    assert posts_seen(upstream) == []


@pytest.mark.parametrize("path", CHATS)
def test_sixty_mebibytes_over_the_limit_are_refused_while_they_come(
    gateway: Gateway, upstream: FaultUpstream, path: str
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %b\r\n" % (path.encode(), TOKEN.encode())
    mebibyte = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as sock:
        sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(65):
            sock.sendall(mebibyte)
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert posts_seen(upstream) == []
