"""The rig proves itself: each fault really happens on the wire, and each check
fails when it should."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.rig import fault_upstream as do
from tests.rig import http_client, pieces
from tests.rig.authority import Authority
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.gateway import PROJECT, SHIPPED_CONFIG, Gateway, group_is_alive
from tests.rig.http_client import open_stream, request
from tests.rig.leaks import LeakCheck, worker_details
from tests.rig.leaks import no_leaks as leaks_checked
from tests.rig.replay_upstream import (
    Cut,
    Edges,
    Recording,
    Replay,
    ReplayUpstream,
    recording,
    recordings,
)
from tests.rig.warm_start import warm_start
from tests.rig.workers import ask_each_worker

CHAT = "/api/chat"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def slow_setup() -> None:
    gevent.get_hub()
    time.sleep(0.5)


def test_a_timer_does_not_end_early_after_a_slow_setup(slow_setup: None) -> None:
    began = time.monotonic()
    gevent.joinall([gevent.spawn(gevent.sleep, 5)], timeout=0.4)
    assert time.monotonic() - began > 0.3


def test_wait_until_says_what_it_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"the lamp stayed dark \(waited 0.1 s\)"):
        wait_until(lambda: False, 0.1, "the lamp stayed dark")
    assert 0.1 <= time.monotonic() - began < 1


def test_wait_until_does_not_count_the_time_in_which_the_machine_stood_still() -> None:
    values = iter([None, None, None, "found"])
    assert wait_until(lambda: next(values), 0.6, sleep=lambda _: time.sleep(0.5)) == "found"


def test_unscripted_paths_answer_like_a_healthy_ollama(fault_upstream: FaultUpstream) -> None:
    paths = ("/", "/api/version", "/api/tags", "/api/ps")
    answers = [request(fault_upstream.url, path=path) for path in paths]
    answers += [
        request(fault_upstream.url, "POST", path, {"model": MODEL, "stream": stream})
        for path in ("/api/show", "/api/chat", "/api/generate", "/api/embed")
        for stream in (True, False)
    ]
    assert {(answer.status, answer.complete) for answer in answers} == {(200, True)}
    assert all(answer.body for answer in answers)
    assert all(json.loads(answer.body.splitlines()[-1]) for answer in answers[1:])


def test_unknown_path_is_404_and_head_has_no_body(fault_upstream: FaultUpstream) -> None:
    assert request(fault_upstream.url, path="/api/nope").status == 404
    assert request(fault_upstream.url, "HEAD", "/").body == b""


def test_log_has_the_request_as_it_was_sent(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script(CHAT, [do.Json({"ok": True}, 201, {"X-Seen": "yes"})])
    answer = request(
        fault_upstream.url,
        "POST",
        CHAT + "?a=%2f",
        {"b": 1, "a": "ü"},
        [("X-Twice", "1"), ("X-Twice", "2")],
    )
    seen = fault_upstream.wait_for_request(1, CHAT)
    assert (answer.status, answer.headers.get("x-seen"), answer.json()) == (
        201,
        "yes",
        {"ok": True},
    )
    assert (seen.method, seen.path, seen.raw_path, seen.json()) == (
        "POST",
        CHAT,
        CHAT + "?a=%2f",
        {"b": 1, "a": "ü"},
    )
    assert [value for name, value in seen.headers if name == "X-Twice"] == ["1", "2"]
    assert seen.complete


def test_chunked_request_body_is_decoded(fault_upstream: FaultUpstream) -> None:
    chunked = {"Transfer-Encoding": "chunked"}
    request(
        fault_upstream.url,
        "POST",
        "/any",
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n",
        chunked,
    )
    assert fault_upstream.requests[0].body == b"abcde"


def test_request_that_stops_in_its_body_is_logged_as_incomplete(
    fault_upstream: FaultUpstream,
) -> None:
    with open_stream(
        fault_upstream.url, "POST", CHAT, b"{", {"Content-Length": "10"}, wait_for_head=False
    ):
        fault_upstream.wait_event("accepted")
    seen = fault_upstream.wait_for_request()
    assert (seen.body, seen.complete) == (b"{", False)


def test_scripts_of_a_path_are_used_in_order_and_the_last_one_stays(
    fault_upstream: FaultUpstream,
) -> None:
    fault_upstream.script("/x", [do.Json(1)], [do.Json(2)])
    assert [request(fault_upstream.url, path="/x").json() for _ in range(4)] == [1, 2, 2, 2]


def test_waits_that_fail_say_what_was_seen(fault_upstream: FaultUpstream) -> None:
    with open_stream(fault_upstream.url, path="/other", headers={"Connection": "keep-alive"}):
        assert fault_upstream.connections_open == 1
        with pytest.raises(
            AssertionError, match="request 1 for /api/chat did not come; seen: .*'/other'"
        ):
            fault_upstream.wait_for_request(1, CHAT, seconds=0.05)
        with pytest.raises(AssertionError, match="no peer_closed on connection 1"):
            fault_upstream.wait_peer_closed(1, 0.05)


def test_malformed_request_line_is_400(fault_upstream: FaultUpstream) -> None:
    assert http_client.raw(fault_upstream.port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert fault_upstream.wait_event("bad_request").connection == 1


def test_keep_alive_requests_share_a_connection(fault_upstream: FaultUpstream) -> None:
    ask = http_client.encode_request(
        "x", "GET", "/api/version", headers={"Connection": "keep-alive"}
    )
    assert http_client.raw(fault_upstream.port, ask + ask, quiet_s=0.2).count(b"HTTP/1.1 200") == 2
    request(fault_upstream.url, path="/api/version")
    assert [seen.connection for seen in fault_upstream.requests] == [1, 1, 2]


def test_idle_connection_is_closed_after_its_time() -> None:
    ask = http_client.encode_request("x", "GET", "/", headers={"Connection": "keep-alive"})
    with FaultUpstream(close_idle_after_s=0.2) as upstream:
        began = time.monotonic()
        http_client.raw(upstream.port, ask, quiet_s=5)
        assert 0.2 <= time.monotonic() - began < 2
        assert upstream.wait_event("closed", 1)
        assert upstream.connections_open == 0


def test_close_after_says_so_and_closes(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.CloseAfter(), do.Json({})])
    with open_stream(fault_upstream.url, path="/x", headers={"Connection": "keep-alive"}) as stream:
        assert stream.read_all() == b"{}"
        assert stream.headers.get("connection") == "close"
        assert stream.sock.recv(1) == b""


def test_refused_port_is_refused_and_comes_back_with_the_same_number(
    fault_upstream: FaultUpstream,
) -> None:
    fault_upstream.refuse()
    with pytest.raises(ConnectionRefusedError):
        request(fault_upstream.url)
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", fault_upstream.port))
    fault_upstream.restart()
    assert request(fault_upstream.url).status == 200


def test_refusing_drops_open_connections(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.Head(), do.Wait(10)])
    with open_stream(fault_upstream.url, path="/x") as stream:
        fault_upstream.refuse()
        assert stream.read_all(2) == b""
        assert not stream.complete


def test_ten_connections_are_served_side_by_side(fault_upstream: FaultUpstream) -> None:
    go = threading.Event()
    fault_upstream.script("/x", [do.WaitFor(go), do.Json({})])
    with ExitStack() as opened:
        ask = partial(open_stream, fault_upstream.url, path="/x", wait_for_head=False)
        streams = [opened.enter_context(ask()) for _ in range(10)]
        fault_upstream.wait_for_request(10)
        go.set()
        assert [stream.read_all() for stream in streams] == [b"{}"] * 10


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(tmp_path: Path, trusted: bool) -> None:
    authority = Authority(tmp_path)
    client = ssl.create_default_context(cafile=authority.certificate if trusted else None)
    with FaultUpstream(ssl_context=authority.server("IP:127.0.0.1")) as upstream:
        if trusted:
            upstream.script("/x", [do.Lines([{"n": 1}] * 2000)])
            answer = request(upstream.url, path="/x", ssl_context=client)
            assert (answer.complete, len(answer.body)) == (True, 2000 * 8)
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                request(upstream.url, ssl_context=client)
            assert upstream.wait_event("tls_failed")


@pytest.mark.parametrize(
    ("action", "chunks", "content_type"),
    [
        (
            do.Lines([{"a": 1}, b"bad\n", {"ü": 2}]),
            [b'{"a":1}\n', b"bad\n", '{"ü":2}\n'.encode()],
            "x-ndjson",
        ),
        (do.Sse([{"a": 1}]), [b'data: {"a":1}\n\n', b"data: [DONE]\n\n"], "event-stream"),
    ],
)
def test_lines_and_events_are_one_chunk_each(
    fault_upstream: FaultUpstream, action: do.Action, chunks: list[bytes], content_type: str
) -> None:
    fault_upstream.script("/x", [action])
    with open_stream(fault_upstream.url, path="/x") as stream:
        assert stream.read_all() == b"".join(chunks)
        assert stream.chunks == [len(one) for one in chunks]
        assert (stream.headers.get("content-type") or "").endswith(content_type)


@pytest.mark.parametrize("edges", [1, 50])
def test_edges_cut_the_sends(fault_upstream: FaultUpstream, edges: int) -> None:
    fault_upstream.script("/x", [do.Lines(["x" * 100], edges=edges)])
    assert request(fault_upstream.url, path="/x").json() == "x" * 100
    fault_upstream.wait_event("closed")
    sizes = [event.size for event in fault_upstream.events if event.kind == "sent"]
    framed = len(b"67\r\n" + b"x" * 102 + b"\n\r\n")
    assert sizes[1:-1] == [edges] * (framed // edges) + [framed % edges] * bool(framed % edges)


def test_delayed_lines_arrive_apart(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.Lines([1, 2, 3], delay_s=0.3)])
    with open_stream(fault_upstream.url, path="/x") as stream:
        times = [line.at for line in stream.lines()]
    assert [later - sooner > 0.1 for sooner, later in zip(times, times[1:], strict=False)] == [
        True,
        True,
    ]


def test_drip_sends_its_bytes_one_by_one_in_order(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.Drip(HEAD + b"2\r\nok\r\n0\r\n\r\n", 0.01)])
    began = time.monotonic()
    with open_stream(fault_upstream.url, path="/x") as stream:
        headed = time.monotonic() - began
        assert (stream.read_all(), stream.complete) == (b"ok", True)
    assert 0.01 * (len(HEAD) - 1) <= headed < time.monotonic() - began
    assert {event.size for event in fault_upstream.events if event.kind == "sent"} == {1}


@pytest.mark.parametrize(
    ("script", "end"),
    [
        pytest.param(
            [do.Head(), do.Chunk(b"half"), do.Cut()],
            b"\r\n\r\n4\r\nhalf\r\n",
            id="cut has no final chunk",
        ),
        pytest.param(
            [do.Head(), do.Chunk(b"a"), do.EndChunks()],
            b"\r\n\r\n1\r\na\r\n0\r\n\r\n",
            id="one final chunk",
        ),
        pytest.param(
            [do.Send(b"\xff 200\nX:\x00\r\n\r\nb"), do.Cut()],
            b"\xff 200\nX:\x00\r\n\r\nb",
            id="raw bytes",
        ),
    ],
)
def test_bytes_on_the_wire(fault_upstream: FaultUpstream, script: do.Script, end: bytes) -> None:
    fault_upstream.script("/x", script)
    assert http_client.raw(
        fault_upstream.port, http_client.encode_request("x", "GET", "/x")
    ).endswith(end)


@pytest.mark.parametrize(
    ("script", "complete"),
    [
        pytest.param([do.Head(), do.Chunk(b"text"), do.Cut()], False, id="cut"),
        pytest.param(
            [do.Head(200, {"Content-Length": "10"}), do.Chunk(b"text")],
            False,
            id="shorter than its length",
        ),
        pytest.param(
            [do.Head(chunked=False), do.Chunk(b"text")], True, id="ends with the connection"
        ),
        pytest.param(
            [do.Head(chunked=False), do.Chunk(b"text"), do.Reset()],
            False,
            id="reset without framing",
        ),
        pytest.param([do.Head(), do.Chunk(b"text")], True, id="ended by the end of the script"),
    ],
)
def test_client_knows_whether_a_body_ended(
    fault_upstream: FaultUpstream, script: do.Script, complete: bool
) -> None:
    fault_upstream.script("/x", script)
    answer = request(fault_upstream.url, path="/x", headers={"Connection": "keep-alive"})
    assert (answer.body, answer.complete) == (b"text", complete)


def test_reset_is_a_reset(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.Head(), do.Chunk(b"half"), do.Reset()])
    with open_stream(fault_upstream.url, path="/x") as stream:
        assert stream.read_some() == b"half"
        fault_upstream.wait_event("reset")
        with pytest.raises(ConnectionResetError):
            stream.sock.recv(1)


def test_early_answer_arrives_while_the_body_is_still_to_be_sent(
    fault_upstream: FaultUpstream,
) -> None:
    fault_upstream.script("/x", [do.NoReadBody(), do.Json({"error": "too large"}, 413)])
    with open_stream(
        fault_upstream.url, "POST", "/x", b"begin", {"Content-Length": "1000000"}
    ) as stream:
        assert (stream.status, stream.read_all()) == (413, b'{"error":"too large"}')
    assert not fault_upstream.requests[0].complete


def test_body_is_read_where_the_script_says_so(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.Head(), do.Chunk(b"first"), do.ReadBody(), do.Chunk(b"last")])
    with open_stream(fault_upstream.url, "POST", "/x", b"", {"Content-Length": "4"}) as stream:
        assert stream.read_some() == b"first"
        stream.sock.sendall(b"body")
        assert (stream.read_all(), stream.complete) == (b"last", True)
    assert fault_upstream.requests[0].body == b"body"


def test_flood_stops_at_its_bytes(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.Flood(b"z" * 1000, limit_bytes=100_000)])
    answer = request(fault_upstream.url, path="/x")
    assert (answer.complete, len(answer.body)) == (True, 100_000)
    assert fault_upstream.bytes_sent() > 100_000


def test_flood_is_held_by_a_reader_that_stops_and_ends_in_time(
    fault_upstream: FaultUpstream,
) -> None:
    fault_upstream.script("/x", [do.Flood(b"z" * 65536, limit_s=0.5)])
    with open_stream(fault_upstream.url, path="/x", receive_buffer=8192) as stream:
        ended = fault_upstream.wait_event("closed")
        assert 0.4 < ended.at - fault_upstream.requests[0].at < 3
        assert fault_upstream.bytes_sent(1) < 20_000_000
        stream.read_all()
        assert not stream.complete


@pytest.mark.parametrize(
    "waiting",
    [
        pytest.param([do.Wait(10)], id="before the head"),
        pytest.param([do.Head(), do.Wait(10)], id="after the head"),
        pytest.param([do.Head(), do.WaitForPeerClose()], id="waiting for the close"),
        pytest.param([do.Head(), do.WaitFor(threading.Event())], id="held by the test"),
        pytest.param([do.Head(), do.Drip(b"slowly", 10)], id="between two bytes"),
        pytest.param([do.Lines(range(9), delay_s=10)], id="between two lines"),
        pytest.param([do.Flood(b"z" * 65536)], id="while flooding"),
        pytest.param([do.Json({})], id="idle after the answer"),
    ],
)
def test_peer_close_is_seen_at_once(
    fault_upstream: FaultUpstream, waiting: list[do.Action]
) -> None:
    for reset in (False, True):
        fault_upstream.script("/x", waiting)
        stream = open_stream(
            fault_upstream.url, path="/x", headers={"Connection": "keep-alive"}, wait_for_head=False
        )
        connection = fault_upstream.wait_for_request(1 + reset).connection
        left = time.monotonic()
        stream.close(reset=reset)
        assert -0.1 < fault_upstream.wait_peer_closed(connection) - left < 3
        assert fault_upstream.connections_open == 0


def test_script_of_a_model_is_for_its_requests_only(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.Json("any")])
    fault_upstream.script("/x", [do.Json(1)], [do.Json(2)], model="case-1")
    asked = [{"model": "case-2"}, {"model": "case-1"}, {"model": "case-1"}, {}, ["case-1"], b"{"]
    answers = [request(fault_upstream.url, "POST", "/x", body).json() for body in asked]
    assert answers == ["any", 1, 2, "any", "any", "any"]
    assert [seen.complete for seen in fault_upstream.requests] == [True] * len(asked)


def test_body_that_a_model_was_read_from_is_not_read_again(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.ReadBody(), do.Json(1)], model="m")
    assert request(fault_upstream.url, "POST", "/x", {"model": "m"}).json() == 1


def test_clear_forgets_scripts_and_log(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/", [do.Json(1)])
    request(fault_upstream.url)
    fault_upstream.wait_event("closed")
    fault_upstream.clear()
    assert (fault_upstream.requests, fault_upstream.events) == ([], [])
    assert request(fault_upstream.url).body == b"Ollama is running"


@pytest.mark.parametrize("kept", [False, True], ids=["new connections", "kept connections"])
def test_what_has_arrived_is_forgotten_as_well(fault_upstream: FaultUpstream, kept: bool) -> None:
    """A test that leaves requests behind takes nothing from the next one."""
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    with ExitStack() as closing:

        def connect() -> socket.socket:
            address = ("127.0.0.1", fault_upstream.port)
            return closing.enter_context(socket.create_connection(address))

        peers = [connect() for _ in range(20 if kept else 0)]
        fault_upstream.clear()
        fault_upstream.script("/x", [do.WaitForPeerClose()])
        for peer in peers or (connect() for _ in range(20)):
            peer.sendall(head + b"{}")
        fault_upstream.clear()
        assert fault_upstream.connections_open == 20
    for connection in range(1, 21):
        fault_upstream.wait_peer_closed(connection)
    assert fault_upstream.requests == []


def test_clear_gives_up_on_a_request_that_does_not_arrive(fault_upstream: FaultUpstream) -> None:
    with open_stream(
        fault_upstream.url, "POST", CHAT, b"{", {"Content-Length": "10"}, wait_for_head=False
    ):
        fault_upstream.wait_event("accepted")
        fault_upstream.clear()
        assert fault_upstream.events == []
    fault_upstream.wait_for_request()


#: recordings whose request is also that of another one, which is then the answer
SHARED = {
    "ps-loaded": "ps-idle",
    "ps-forever": "ps-idle",
    "preflight-localhost": "options-no-origin",
    "origin-foreign": "chat-hello-single",
    "blob-head-missing": "blob-head",
    "blob-post-again": "blob-post-new",
}


def expected_chunks(one: Recording, cut: Cut, edges: Edges) -> list[int]:
    """Return the sizes of the chunks that a replay sends."""
    if isinstance(cut, int) and edges == "chunks":
        return [len(part) for part in pieces(one.response, cut)]
    return [len(one.response)] if cut == "whole" else list(one.chunks or ())


@pytest.mark.parametrize("name", ["chat-hello-stream", "chat-hello-single", "blob-head"])
@pytest.mark.parametrize(
    ("cut", "edges"),
    [("whole", "chunks"), (1, "chunks"), (7, "chunks"), (1, "sends"), (7, "sends")],
)
def test_replay_gives_the_recorded_bytes_however_they_are_cut(
    name: str, cut: Cut, edges: Edges
) -> None:
    one = recording(name)
    with ReplayUpstream(cut, edges=edges) as upstream:
        upstream.answer_with(name)
        with open_stream(upstream.url, one.method, one.path, one.request) as stream:
            body = stream.read_all()
    assert (stream.status, body, stream.complete) == (one.status, one.response, True)
    if one.chunks is not None:
        assert stream.chunks == expected_chunks(one, cut, edges)


def test_every_recording_can_be_cut() -> None:
    for one in (each for each in recordings() if each.chunks is not None):
        for cut in ("recorded", "whole", 1, 2, 3, 7, 50):
            for edges in ("chunks", "sends"):
                parts = list(Replay(one, cut, edges)._parts())
                assert b"".join(parts) == one.response
                assert [len(part) for part in parts] == expected_chunks(one, cut, edges)


replaying = function_fixture(ReplayUpstream)


def test_every_recorded_request_finds_its_recording(replaying: ReplayUpstream) -> None:
    wrong = []
    for one in recordings():
        kind = {"Content-Type": one.request_content_type}
        expected = recording(SHARED.get(one.name, one.name))
        with open_stream(replaying.url, one.method, one.path, one.request, kind) as stream:
            seen = (stream.status, stream.read_all(), stream.complete)
        headers = [item for item in stream.headers if item[0] != "Connection"]
        if seen != (expected.status, expected.response, True) or headers != expected.sent_headers:
            wrong.append(one.name)
        if expected.chunks is not None and stream.chunks != list(expected.chunks):
            wrong.append(f"{one.name}: its chunks")
    assert not wrong, "\n".join(wrong)


def test_equal_json_in_another_order_is_the_same_request(replaying: ReplayUpstream) -> None:
    one = recording("chat-hello-stream")
    turned = dict(reversed(json.loads(one.request).items()))
    assert json.dumps(turned).encode() != one.request
    assert request(replaying.url, "POST", one.path, turned).body == one.response


def test_unmatched_request_is_501_and_names_what_was_asked(replaying: ReplayUpstream) -> None:
    answer = request(replaying.url, "POST", CHAT, {"model": "unheard-of"})
    assert answer.status == 501
    assert answer.json() == {"error": 'no recording for POST /api/chat {"model": "unheard-of"}'}


def test_forced_answer_is_given_so_many_times(replaying: ReplayUpstream) -> None:
    with pytest.raises(KeyError, match="no recording is named 'nope'"):
        replaying.answer_with("nope")
    forced = replaying.answer_with("chat-think-stream", times=2)
    answers = [request(replaying.url, "POST", CHAT, {"translated": n}) for n in range(3)]
    assert [answer.body == forced.response for answer in answers] == [True, True, False]
    assert [seen.json() for seen in replaying.requests] == [
        {"translated": 0},
        {"translated": 1},
        {"translated": 2},
    ]


def test_replay_can_be_scripted_and_cut_off(replaying: ReplayUpstream) -> None:
    one = recording("chat-sky-stream")
    replaying.script(CHAT, [Replay(one), do.Cut()])
    answer = request(replaying.url, "POST", CHAT, {})
    assert (answer.body, answer.complete) == (one.response, False)


def test_client_reads_a_stream_without_waiting_for_its_end(fault_upstream: FaultUpstream) -> None:
    go = threading.Event()
    fault_upstream.script("/x", [do.Head(), do.Chunk(b"one"), do.WaitFor(go), do.Chunk(b"two")])
    with open_stream(fault_upstream.url, path="/x") as stream:
        assert stream.read_some() == b"one"
        with pytest.raises(TimeoutError):
            stream.read_some(0.05)
        go.set()
        assert (stream.read_some(), stream.read_some(), stream.complete) == (b"two", b"", True)


def test_client_skips_100_continue(fault_upstream: FaultUpstream) -> None:
    answer = request(
        fault_upstream.url, "POST", "/api/show", {"model": "m"}, {"Expect": "100-continue"}
    )
    assert (answer.status, fault_upstream.requests[0].json()) == (200, {"model": "m"})


def test_client_says_when_there_was_no_answer(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/x", [do.Cut()])
    with pytest.raises(ConnectionError, match="ended before the answer"):
        request(fault_upstream.url, path="/x")


#: stands in for the real application, started by the same command
APP = """
import json, os
HELD, IN_FLIGHT = [], []

def ready(environ):
    details = {"pid": os.getpid(), "in_flight": len(IN_FLIGHT), "watched": 0, "greenlets": 1,
               "upstream_connections": {"active": 0, "idle": 0}}
    return json.dumps({"details": details} if environ.get("HTTP_AUTHORIZATION") == "Bearer secret" else {})

def log(environ):
    with open(os.environ["LOGS_DIRECTORY"] + "/access.log", "a") as file:
        file.write('{"path": "/log"}\\n{"unfinished')

ROUTES = {"/readyz": ready, "/log": log, "/environment": lambda _: json.dumps(dict(os.environ)),
          "/config": lambda _: open(os.environ["OLLAMA_PROXY_CONFIG"]).read(),
          "/leak-descriptor": lambda _: HELD.append(open("/dev/null")), "/leak-slot": lambda _: IN_FLIGHT.append(1)}

def app(environ, start_response):
    body = ROUTES.get(environ["PATH_INFO"], lambda _: "alive")(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [(body or "done").encode()]
"""


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("application")
    (directory / "small_app.py").write_text(APP)
    return directory


def shape(application: Path, app: str = "small_app:app") -> dict[str, Any]:
    return {"app": app, "gunicorn_config": PROJECT / SHIPPED_CONFIG, "cwd": application}


def small_gateway(application: Path, **options: Any) -> Gateway:
    return Gateway({"auth": {"enabled": False}}, **{**shape(application), **options})


gateway = module_fixture(lambda application: small_gateway(application))


def test_gateway_runs_two_workers_of_its_own(gateway: Gateway) -> None:
    assert len(gateway.worker_pids()) == 2
    assert {os.getpgid(pid) for pid in gateway.worker_pids()} == {gateway.pid} != {os.getpgrp()}
    assert request(gateway.url, path="/livez").text == "alive"


def test_gateway_gets_the_configuration_and_its_replacement(gateway: Gateway) -> None:
    assert request(gateway.url, path="/config").text == "auth:\n  enabled: false\n"
    gateway.write_config("auth: {}\n")
    assert request(gateway.url, path="/config").text == "auth: {}\n"


def test_foreign_environment_does_not_reach_the_gateway(
    application: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from the shell")
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://elsewhere")
    with small_gateway(application, workers=1, env={"LOG_LEVEL": "DEBUG"}) as running:
        seen = request(running.url, path="/environment").json()
    assert (seen.get("OPENAI_API_KEY"), seen.get("OLLAMA_BASE_URL"), seen["LOG_LEVEL"]) == (
        None,
        None,
        "DEBUG",
    )


def test_log_lines_are_read_as_json_and_unfinished_ones_left_out(gateway: Gateway) -> None:
    assert gateway.log_lines("access") == []
    request(gateway.url, path="/log")
    assert gateway.log_lines("access", at_least=1) == [{"path": "/log"}]
    with pytest.raises(AssertionError, match="access.log has only"):
        gateway.log_lines("access", at_least=2, seconds=0.05)


def test_a_copy_that_ends_at_once_has_its_own_id_and_exit_code(tmp_path: Path) -> None:
    with (tmp_path / "output").open("w+") as output:
        for arguments, code in ((["--version"], 0), (["--no-such-option"], 2)):
            started = warm_start().start_gateway(
                arguments, cwd=PROJECT, env=os.environ, output=output.fileno()
            )
            assert started.wait(20) == code == started.poll()
            assert started.pid <= int(Path("/proc/sys/kernel/pid_max").read_text())
        output.seek(0)
        assert "gunicorn (version" in output.read()


def test_stop_ends_it_with_exit_code_0(application: Path) -> None:
    # One worker, which has answered: without the shipped configuration, gunicorn loses a TERM that
    # comes while another one starts.
    with small_gateway(application, workers=1) as running:
        assert running.stop() == 0
        assert not group_is_alive(running.pid)
    assert not running.directory.exists()
    assert "Listening at" in running.output()


@pytest.mark.parametrize("master_is_alive", [True, False])
def test_gateway_ends_with_the_block_even_when_the_test_fails(
    application: Path, master_is_alive: bool
) -> None:
    with pytest.raises(ZeroDivisionError), small_gateway(application) as running:
        if not master_is_alive:
            os.kill(running.pid, signal.SIGKILL)
        raise ZeroDivisionError
    assert not group_is_alive(running.pid)


def test_failing_start_raises_with_the_output_or_is_described(application: Path) -> None:
    with pytest.raises(
        AssertionError, match="(?s)while starting; its output:.*No module named 'missing'"
    ):
        small_gateway(application, app="missing:app").__enter__()
    failed = Gateway.start_expecting_failure({}, **shape(application, "missing:app"))
    assert failed.exit_code != 0
    assert "No module named 'missing'" in failed.output
    assert 0 < failed.seconds < 15


def test_start_that_unexpectedly_works_is_an_error(application: Path) -> None:
    with pytest.raises(AssertionError, match="still running after 1.5 s"):
        Gateway.start_expecting_failure({}, seconds=1.5, **shape(application))


def test_every_worker_is_asked_and_a_wrong_token_is_no_silent_pass(gateway: Gateway) -> None:
    details = worker_details(gateway, "secret")
    assert {one["pid"] for one in details.values()} == details.keys() == gateway.worker_pids()
    with pytest.raises(AssertionError, match="/readyz has no details"):
        worker_details(gateway, "wrong")


def test_fixtures_start_a_gateway_and_pass_when_nothing_leaks(
    application: Path,
    fault_upstream: FaultUpstream,
    gateway_for: Callable[..., Gateway],
    no_leaks: Callable[..., LeakCheck],
) -> None:
    running = gateway_for({}, **shape(application))
    check = no_leaks(running, fault_upstream, token="secret", idle=0)
    assert check.before.details.keys() == running.worker_pids()
    assert request(running.url).status == request(fault_upstream.url).status == 200


def test_open_descriptor_is_a_leak_and_is_named(gateway: Gateway) -> None:
    with pytest.raises(AssertionError, match="leaked: worker .* descriptors of files, .*/dev/null"):
        with leaks_checked(gateway, token="secret", idle=0, seconds=0.3):
            request(gateway.url, path="/leak-descriptor")


def test_request_that_stays_in_flight_is_a_leak(application: Path) -> None:
    with (
        small_gateway(application) as running,
        pytest.raises(AssertionError, match="leaked: worker .* has 1 requests"),
    ):
        with leaks_checked(running, token="secret", seconds=0.3):
            request(running.url, path="/leak-slot")


def test_upstream_connection_over_the_allowance_is_a_leak(
    gateway: Gateway, fault_upstream: FaultUpstream
) -> None:
    kept = {"Connection": "keep-alive"}
    # A worker that is still starting opens what it keeps.
    assert set(ask_each_worker(gateway, "/livez")) == gateway.worker_pids()
    check = LeakCheck(gateway, fault_upstream, idle=1)
    with (
        open_stream(fault_upstream.url, headers=kept),
        open_stream(fault_upstream.url, headers=kept),
    ):
        with pytest.raises(
            AssertionError, match="2 upstream connections are open, at most 1 may be"
        ):
            check.verify(0.1)
    check.verify()


def test_worker_that_was_replaced_is_noticed(application: Path) -> None:
    with small_gateway(application) as running:
        check = LeakCheck(running, token="secret")
        os.kill(next(iter(running.worker_pids())), signal.SIGKILL)
        with pytest.raises(AssertionError, match="workers were"):
            check.verify(1)
