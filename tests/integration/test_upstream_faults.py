"""What an upstream can do wrong, and what of it a client may see: an honest error, once, and never a good end."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig import NDJSON, chunk
from tests.rig.calls import (
    CHAT_LINE,
    FACES,
    TOKEN,
    Face,
    access_line,
    ask,
    config,
    each_dialect,
    each_face,
    each_single,
    each_sse,
    error_text,
    is_well_ended,
    last_error,
    warm_up,
    whole,
)
from tests.rig.checked import checked_gateway
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Chunk,
    Cut,
    FaultUpstream,
    Head,
    Json,
    Lines,
    Reset,
    Script,
    ScriptedServer,
    Send,
    Wait,
    Whole,
)
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, request

JSON = {"Content-Type": "application/json"}
DONE = {"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    unsaid = ("Traceback", "internal_error")
    with checked_gateway(config(shared_upstream.url), shared_upstream, TOKEN, warm=warm_up, unsaid=unsaid) as gateway:
        yield gateway


def encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def arrivals(upstream: FaultUpstream, path: str) -> int:
    """How many requests for a path have reached the upstream."""
    return sum(seen.path == path for seen in upstream.requests)


# --- Not there -------------------------------------------------------------------------------------------------------


@each_single
def test_U1_refused_connection_is_503_at_once(gateway: Gateway, upstream: FaultUpstream, face: Face) -> None:
    upstream.refuse()
    try:
        began = time.monotonic()
        answer = whole(gateway, face, stream=False)
        assert time.monotonic() - began < 1
        assert answer.status == 503
        assert error_text(answer, face).startswith("Failed to connect to Ollama service")
    finally:
        upstream.restart()


def test_upstream_that_comes_back_is_used_at_once(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.refuse()
    assert whole(gateway, FACES["openai chat"], stream=True).status == 503
    wait_until(lambda: request(gateway.url, path="/readyz").status == 503, 5, "still ready without its upstream")
    assert request(gateway.url, path="/livez").status == 200
    upstream.restart()
    assert whole(gateway, FACES["openai chat"], stream=True).body.endswith(b"data: [DONE]\n\n")
    wait_until(lambda: request(gateway.url, path="/readyz").status == 200, 5, "not ready again")


def test_U26_name_that_does_not_resolve_is_503_and_stops_nobody_else(gateway_for: Callable[..., Gateway]) -> None:
    gateway = gateway_for(config("http://no-such-host.invalid:11434", timeouts={"connect_s": 1}))
    face = FACES["openai chat"]
    pending = [ask(gateway.url, face, f"lost-{n}", wait_for_head=False) for n in range(15)]
    began = time.monotonic()
    assert request(gateway.url, path="/livez").status == 200
    assert time.monotonic() - began < 1
    for stream in pending:
        with stream:
            assert stream.read_head(5)[0] == 503
    assert request(gateway.url, path="/readyz").status == 503


# --- Refusals and wrong answers --------------------------------------------------------------------------------------


@each_single
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 502, 503, 504])
def test_U10_U11_refusal_keeps_its_status_and_text(
    gateway: Gateway, upstream: FaultUpstream, face: Face, status: int
) -> None:
    upstream.script(face.upstream_path, [Json({"error": "no can do"}, status)])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, error_text(answer, face)) == (status, "no can do")
    assert arrivals(upstream, face.upstream_path) == 1


@pytest.mark.parametrize("stream", [True, False])
@each_dialect
@pytest.mark.parametrize("status", [429, 503])
def test_U11_retry_after_of_the_upstream_is_passed_on(
    gateway: Gateway, upstream: FaultUpstream, status: int, face: Face, stream: bool
) -> None:
    upstream.script("/api/chat", [Json({"error": "server busy"}, status, {"Retry-After": "7"})])
    answer = whole(gateway, face, stream=stream)
    assert (answer.status, answer.headers.get("Retry-After")) == (status, "7")


@each_single
@pytest.mark.parametrize("status", [401, 402, 407])
def test_refusal_of_the_gateways_own_credentials_is_never_the_clients_fault(
    gateway: Gateway, upstream: FaultUpstream, face: Face, status: int
) -> None:
    upstream.script(face.upstream_path, [Json({"error": "unauthorized"}, status, {"WWW-Authenticate": "Bearer"})])
    answer = whole(gateway, face, stream=False)
    assert answer.status == 502
    assert answer.headers.get("WWW-Authenticate") is None
    assert error_text(answer, face)


@pytest.mark.parametrize("stream", [True, False])
@each_dialect
@pytest.mark.parametrize("status", [301, 302, 307])
def test_U16_redirect_is_502_and_not_followed(
    gateway: Gateway, upstream: FaultUpstream, fault_upstream: FaultUpstream, status: int, face: Face, stream: bool
) -> None:
    upstream.script(face.upstream_path, [Whole(b"", status, {"Location": fault_upstream.url + face.upstream_path})])
    answer = whole(gateway, face, stream=stream)
    assert (answer.status, answer.headers.get("Location")) == (502, None)
    assert error_text(answer, face)
    assert (fault_upstream.requests, fault_upstream.connections_open) == ([], 0)


@pytest.mark.parametrize("stream", [True, False])
@each_face
@pytest.mark.parametrize("status", [200, 404, 500])
def test_U20_html_page_is_502_and_not_shown(
    gateway: Gateway, upstream: FaultUpstream, status: int, face: Face, stream: bool
) -> None:
    page = b"<html><script>alert(1)</script></html>"
    upstream.script(face.upstream_path, [Whole(page, status, {"Content-Type": "text/html"})])
    answer = whole(gateway, face, stream=stream)
    assert answer.status == 502
    assert "html" not in answer.text
    assert error_text(answer, face)


def raw_head(*lines: bytes) -> Send:
    return Send(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""]))


CANARY = b"canary-of-the-upstream"
BAD_HEADS: dict[str, Send] = {
    "1 MiB header": raw_head(b"Content-Type: application/json", b"X-Long: " + CANARY + b"x" * (1 << 20)),
    "5,000 headers": raw_head(*(b"X-%d: %s" % (n, CANARY) for n in range(5000)), b"Content-Length: 2"),
    "two lengths": raw_head(b"Content-Length: 2", b"Content-Length: 40", b"X-Seen: " + CANARY),
    "length and chunks": raw_head(b"Content-Length: 2", b"Transfer-Encoding: chunked", b"X-Seen: " + CANARY),
    "length that is no number": raw_head(b"Content-Length: two", b"X-Seen: " + CANARY),
    "header without a name": raw_head(b": " + CANARY, b"Content-Length: 2"),
    "control character in a value": raw_head(b"X-Seen: a\x01b" + CANARY, b"Content-Length: 2"),
    "CR in a value": raw_head(b"X-Seen: a\rX-Other: " + CANARY, b"Content-Length: 2"),
    "not HTTP": Send(b"220 " + CANARY + b" ESMTP ready\r\n"),
    "unknown version": Send(b"HTTP/9.7 200 OK\r\nContent-Length: 2\r\n\r\n{}" + CANARY),
    "no status": Send(b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}" + CANARY),
}


@each_dialect
@pytest.mark.parametrize("bad", BAD_HEADS.values(), ids=BAD_HEADS)
def test_U19_bad_http_is_502_and_nothing_of_it_reaches_the_client(
    gateway: Gateway, upstream: FaultUpstream, bad: Send, face: Face
) -> None:
    upstream.script("/api/chat", [bad, Send(b"{}"), Cut()])
    answer = whole(gateway, face, stream=False)
    assert answer.status == 502
    assert CANARY.decode() not in answer.text + str(answer.headers)
    assert error_text(answer, face)


@pytest.mark.parametrize("stream", [True, False])
@each_sse
@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b"\xff\xfe", b'"text"'])
def test_answer_that_is_no_json_object_is_502(
    gateway: Gateway, upstream: FaultUpstream, body: bytes, face: Face, stream: bool
) -> None:
    upstream.script(face.upstream_path, [Whole(body, 200, JSON)])
    answer = whole(gateway, face, stream=stream)
    assert answer.status == 502
    assert error_text(answer, face)


@pytest.mark.parametrize("vectors", [None, [], [[0.1], [0.2]], "text"])
def test_embeddings_that_do_not_match_their_inputs_are_502(
    gateway: Gateway, upstream: FaultUpstream, vectors: Any
) -> None:
    upstream.script("/api/embed", [Json({"model": "m", "embeddings": vectors})])
    answer = request(gateway.url, "POST", "/v1/embeddings", {"model": "m", "input": ["one"]}, bearer(TOKEN))
    assert answer.status == 502


# --- Cut short -------------------------------------------------------------------------------------------------------

CHUNKED = Head(200, NDJSON)
CUTS: dict[str, Callable[[Face], Script]] = {
    "reset in a chunk": lambda face: [CHUNKED, Chunk(encoded(face.line)), Send(b"30\r\n{"), Reset()],
    "reset between chunks": lambda face: [CHUNKED, Chunk(encoded(face.line)), Reset()],
    "no final chunk": lambda face: [CHUNKED, Chunk(encoded(face.line)), Cut()],
    "length too long": lambda face: [Head(200, {**NDJSON, "Content-Length": "5000"}), Chunk(encoded(face.line)), Cut()],
    "end of the connection": lambda face: [Head(200, NDJSON, chunked=False), Chunk(encoded(face.line))],
    "final chunk without done": lambda face: [Lines([face.line, face.line])],
    "half a line": lambda face: [CHUNKED, Chunk(encoded(face.line)), Chunk(encoded(face.line)[:-20])],
    "bad chunk size": lambda face: [CHUNKED, Chunk(encoded(face.line)), Wait(0.2), Send(b"zz\r\n"), Cut()],
}


@each_face
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_U7_U8_stream_that_stops_early_ends_with_an_error(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, cut: Callable[[Face], Script], face: Face
) -> None:
    upstream.script(face.upstream_path, cut(face))
    answer = whole(gateway, face, request_id, stream=True)
    assert answer.status == 200
    assert b"Hel" in answer.body
    assert last_error(answer.body, face)
    assert arrivals(upstream, face.upstream_path) == 1
    line = access_line(gateway, request_id)
    assert (line["state"], line["status"]) == ("upstream_error", 200)


SINGLE_CUTS: dict[str, Script] = {
    "before the head": [Cut()],
    "reset before the head": [Reset()],
    "inside the head": [Send(b"HTTP/1.1 200 OK\r\nContent-Le"), Cut()],
    "before the body": [Head(200, {**JSON, "Content-Length": "100"}), Cut()],
    "inside the body": [Head(200, {**JSON, "Content-Length": "100"}), Chunk(b'{"model":"m"'), Cut()],
    "no final chunk": [Head(200, JSON), Chunk(b'{"model":"m","done":true}'), Cut()],
    "reset in a chunk": [Head(200, JSON), Send(b"30\r\n{"), Reset()],
}


@each_single
@pytest.mark.parametrize("cut", SINGLE_CUTS.values(), ids=SINGLE_CUTS)
def test_U7_U8_single_answer_that_stops_early_is_502_and_not_asked_again(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, cut: Script, face: Face
) -> None:
    upstream.script(face.upstream_path, cut)
    answer = whole(gateway, face, request_id, stream=False)
    assert answer.status == 502
    assert error_text(answer, face)
    assert access_line(gateway, request_id)["error"] == "upstream_cut"
    assert access_line(gateway, request_id)["state"] == "upstream_error"


@each_face
@pytest.mark.parametrize("before", [True, False], ids=["fresh connection", "pooled connection"])
def test_U12_failure_after_the_first_byte_is_never_tried_again(
    gateway: Gateway, upstream: FaultUpstream, face: Face, before: bool
) -> None:
    if before:
        assert whole(gateway, face, stream=False).status == 200
        upstream.clear()
    upstream.script(face.upstream_path, [Send(b"HTTP/1.1 200 OK\r\n"), Reset()])
    assert whole(gateway, face, stream=True).status == 502
    assert arrivals(upstream, face.upstream_path) == 1


def test_large_single_answer_that_stops_early_is_cut_for_the_client_too(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    head = Head(200, {**JSON, "Content-Length": "6000000"})
    upstream.script("/api/embed", [head, Chunk(b'{"embeddings":[[' + b"0.125," * 500_000), Cut()])
    answer = request(
        gateway.url,
        "POST",
        "/api/embed",
        {"model": "m", "input": "hi"},
        {**bearer(TOKEN), "X-Request-Id": request_id},
    )
    assert (answer.status, answer.complete) == (200, False)
    assert access_line(gateway, request_id)["state"] == "upstream_error"


@each_face
def test_cut_behind_the_done_line_spoils_nothing(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [CHUNKED, Chunk(encoded(face.line) + encoded({**face.line, **DONE})), Cut()])
    answer = whole(gateway, face, request_id, stream=True)
    assert is_well_ended(answer.body, face)
    assert access_line(gateway, request_id)["state"] == "ok"


# --- Odd, but right --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [1, 2, 3, 7, None])
@each_face
def test_U21_packets_may_be_cut_anywhere(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face, edges: int | None
) -> None:
    lines = [face.line, json.loads(json.dumps(face.line).replace("Hel", "你好 🌍 \u2028")), {**face.line, **DONE}]
    upstream.script(face.upstream_path, [Lines(lines, edges=edges)])
    answer = whole(gateway, face, request_id, stream=True)
    if face.path.startswith("/api/"):
        assert answer.body == b"".join(
            json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines
        )
    else:
        # Some clients take the character itself for the end of a line: it may come escaped.
        assert "你好 🌍 \u2028" in answer.text.replace("\\u2028", "\u2028")
        assert is_well_ended(answer.body, face)
    line = access_line(gateway, request_id)
    assert (line["prompt_eval_count"], line["eval_count"], line["state"]) == (7, 3, "ok")


@each_face
def test_U21_several_lines_in_one_packet_are_all_delivered(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    packet = encoded(face.line) * 50 + encoded({**face.line, **DONE})
    upstream.script(face.upstream_path, [CHUNKED, Chunk(packet)])
    assert whole(gateway, face, stream=True).text.count("Hel") >= 50


WILD: dict[str, Any] = {
    "negative": -5,
    "text": "many",
    "huge": 10**30,
    "float": 1e300,
    "true": True,
    "null": None,
    "list": [1],
}


@pytest.mark.parametrize("stream", [True, False])
@each_dialect
@pytest.mark.parametrize("value", WILD.values(), ids=WILD)
def test_U23_wild_usage_numbers_count_nothing_and_break_nothing(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, value: Any, face: Face, stream: bool
) -> None:
    end = {**face.line, **DONE, "prompt_eval_count": value, "eval_count": value}
    upstream.script(face.upstream_path, [Lines([face.line, end])] if stream else [Json(end)])
    answer = whole(gateway, face, request_id, stream=stream)
    assert answer.status == 200
    line = access_line(gateway, request_id)
    assert line["state"] == "ok"
    assert line["estimated"] or not (line["prompt_eval_count"] or line["eval_count"])
    assert (line["prompt_eval_count"] or 0) < 100 and (line["eval_count"] or 0) < 100


@each_face
def test_U23_usage_given_twice_is_counted_once(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    end = encoded({**face.line, **DONE}).replace(b'"eval_count":3', b'"eval_count":3,"eval_count":3')
    upstream.script(face.upstream_path, [CHUNKED, Chunk(end)])
    assert whole(gateway, face, request_id, stream=True).status == 200
    assert access_line(gateway, request_id)["eval_count"] == 3


@each_face
def test_U23_nan_is_an_error_and_not_a_crash(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    end = encoded({**face.line, **DONE}).replace(b'"eval_count":3', b'"eval_count":NaN')
    upstream.script(face.upstream_path, [CHUNKED, Chunk(encoded(face.line)), Chunk(end)])
    answer = whole(gateway, face, request_id, stream=True)
    assert answer.status == 200
    assert access_line(gateway, request_id)["state"] == "upstream_error"


HOP_BY_HOP = {
    "Set-Cookie": "sid=user-a; Path=/",
    "Connection": "keep-alive, X-Private",
    "Keep-Alive": "timeout=5",
    "Server": "hidden/1.0",
    "X-Private": "for this hop",
    "Proxy-Authenticate": "Basic",
}


@each_single
def test_U24_headers_of_one_hop_and_cookies_stop_here(gateway: Gateway, upstream: FaultUpstream, face: Face) -> None:
    answer_now = {**face.line, **DONE, "embeddings": [[0.5]]}
    upstream.script(face.upstream_path, [Json(answer_now, 200, HOP_BY_HOP)])
    answer = whole(gateway, face, stream=False)
    assert answer.status == 200
    names = {name.lower() for name, _ in answer.headers}
    assert not names & {"set-cookie", "keep-alive", "x-private", "proxy-authenticate"}
    assert "hidden" not in str(answer.headers)
    whole(gateway, face, stream=False)
    assert all(seen.header("cookie") is None for seen in upstream.requests)


@each_single
@pytest.mark.parametrize("wanted", ["gzip", "gzip, deflate, br, zstd", "*"])
def test_U18_identity_is_asked_for_whatever_the_client_takes(
    gateway: Gateway, upstream: FaultUpstream, face: Face, wanted: str
) -> None:
    headers = {**bearer(TOKEN), "Accept-Encoding": wanted}
    assert request(gateway.url, "POST", face.path, {**face.body, "stream": False}, headers).status == 200
    assert upstream.wait_for_request(1, face.upstream_path).header("accept-encoding") == "identity"


@each_single
def test_U18_compressed_answer_that_nobody_asked_for_is_502(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    bomb = gzip.compress(json.dumps({**CHAT_LINE, "x": "0" * 5_000_000}).encode())
    upstream.script(face.upstream_path, [Whole(bomb, 200, {**JSON, "Content-Encoding": "gzip"})])
    assert whole(gateway, face, stream=False).status == 502


# --- A pooled connection that the upstream closed ---------------------------------------------------------------------


def test_U17_connection_closed_while_idle_costs_no_request_and_runs_none_twice(
    gateway_for: Callable[..., Gateway],
) -> None:
    with FaultUpstream(close_idle_after_s=0.1) as upstream:
        gateway = gateway_for(config(upstream.url), workers=1)
        for _ in range(30):
            assert whole(gateway, FACES["openai chat"], stream=True).status == 200
            time.sleep(0.1)  # spaced as the upstream's limit, so that its close and the next request cross
        assert arrivals(upstream, "/api/chat") == 30


def test_upstream_that_closes_after_every_answer_is_used_all_the_same(gateway_for: Callable[..., Gateway]) -> None:
    with ScriptedServer() as upstream:
        upstream.script("/api/version", [Json({"version": "1"})])
        end = json.dumps({**CHAT_LINE, **DONE}).encode()
        upstream.script(
            "/api/chat", [Send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(end), end)), Cut()]
        )
        gateway = gateway_for(config(upstream.url), workers=1)
        for _ in range(20):
            assert whole(gateway, FACES["openai chat"], stream=False).status == 200


def test_bytes_behind_an_answer_are_not_taken_for_the_next_one(gateway: Gateway, upstream: FaultUpstream) -> None:
    end = encoded({**CHAT_LINE, **DONE})
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"
    head = Send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
    upstream.script("/api/chat", [head, Send(chunk(end) + b"0\r\n\r\n" + stray)])
    for _ in range(6):
        answer = whole(gateway, FACES["native chat"], stream=True)
        assert answer.body == end
