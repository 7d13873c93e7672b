"""The transport alone, in this process and without any monkey patching, against real sockets."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import gevent
import pytest
from gevent import socket as gsocket

from ollama_proxy.errors import (
    ClientGone,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.base import Connections, UpstreamRequest
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.transport.session import Host, HttpReply, HttpTransport, Pool
from tests.rig import chunk
from tests.rig.authority import REFUSED, Authority
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Chunk,
    CloseAfter,
    Cut,
    FaultUpstream,
    Head,
    Json,
    NoReadBody,
    ReadBody,
    Reset,
    Send,
    Wait,
    WaitForPeerClose,
    Whole,
)

LIMITS = Timeouts(connect_s=2, first_byte_s=2, idle_s=2, total_s=5)
PATH = "/api/chat"
POST = UpstreamRequest("POST", PATH, b"{}")
OK = b"HTTP/1.1 200 OK\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def transport(fault_upstream: FaultUpstream) -> Iterator[HttpTransport]:
    with contextlib.closing(HttpTransport(fault_upstream.url)) as one:
        yield one


def read(reply: HttpReply) -> Answer:
    """All of an answer; it is closed."""
    with contextlib.closing(reply):
        reply.wait_head()
        body = b"".join(iter(reply.read_some, b""))
        return Answer(reply.status, dict(reply.headers), body)


def fetch(
    transport: HttpTransport, request: UpstreamRequest = POST, limits: Timeouts = LIMITS
) -> Answer:
    return read(transport.open(request, Call(limits)))


# --- Heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-Early: 1\r\n\r\n",
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <b>\r\n\r\n"
        ),
    ],
    ids=["100", "103", "three"],
)
@pytest.mark.parametrize("together", [True, False])
def test_interim_answers_are_passed_over(
    fault_upstream: FaultUpstream, transport: HttpTransport, interim: bytes, together: bool
) -> None:
    final = OK + b"X-Final: 1\r\nContent-Length: 4\r\n\r\nbody"
    parts = [Send(interim + final)] if together else [Send(interim), Wait(0.05), Send(final)]
    fault_upstream.script(PATH, parts)
    answer = fetch(transport)
    assert (answer.status, answer.body) == (200, b"body")
    assert answer.headers == {"x-final": "1", "content-length": "4"}
    assert transport.connections == Connections(active=0, idle=1)


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_ends_with_its_head(
    fault_upstream: FaultUpstream, transport: HttpTransport, status: int
) -> None:
    fault_upstream.script(PATH, [Head(status, chunked=False), Wait(60)])
    reply = None
    if status == 304:
        with pytest.raises(UpstreamError):
            fetch(transport)
    else:
        reply = fetch(transport)
        assert (reply.status, reply.body) == (204, b"")


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "1000"}, {"Transfer-Encoding": "chunked"}, {}]
)
def test_head_answer_has_no_body_whatever_it_announces(
    fault_upstream: FaultUpstream, transport: HttpTransport, headers: dict[str, str]
) -> None:
    fault_upstream.script(PATH, [Head(200, headers, chunked=False), Wait(60)])
    answer = fetch(transport, UpstreamRequest("HEAD", PATH))
    assert (answer.status, answer.body) == (200, b"")
    assert transport.connections.active == 0


def test_next_request_after_a_head_gets_its_own_answer(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(
        PATH, [Head(200, {"Content-Length": "1000"}, chunked=False)], [Whole(b"second")]
    )
    fetch(transport, UpstreamRequest("HEAD", PATH))
    assert fetch(transport).body == b"second"


def test_headers_come_in_lower_case(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [Json({}, headers={"X-Kept": "1", "RETRY-AFTER": "2"})])
    headers = fetch(transport).headers
    assert (headers["x-kept"], headers["retry-after"]) == ("1", "2")


@pytest.mark.parametrize("count", [150, 400])
def test_number_of_headers_has_a_limit(
    fault_upstream: FaultUpstream, transport: HttpTransport, count: int
) -> None:
    fault_upstream.script(PATH, [Json({}, headers={f"X-{n}": "1" for n in range(count)})])
    if count > 200:
        with pytest.raises(UpstreamError):
            fetch(transport)
    else:
        assert len(fetch(transport).headers) >= count


# --- Bodies of answers ----------------------------------------------------------------------------


def test_trailers_are_no_headers_and_no_body(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    head = OK + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    fault_upstream.script(
        PATH, [Send(head + chunk(b"body") + b"0\r\nX-Sum: 1\r\n\r\n")], [Whole(b"next")]
    )
    answer = fetch(transport)
    assert (answer.body, "x-sum" in answer.headers) == (b"body", False)
    assert fetch(transport).body == b"next"
    assert fault_upstream.events[-1].connection == 1


def test_chunk_extensions_are_passed_over(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(
        PATH, [Send(OK + b"Transfer-Encoding: chunked\r\n\r\n4;a=b\r\nbody\r\n0\r\n\r\n")]
    )
    assert fetch(transport).body == b"body"


def test_body_may_end_with_the_connection(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [Head(200, chunked=False), Chunk(b"a"), Wait(0.05), Chunk(b"b")])
    assert fetch(transport).body == b"ab"
    assert transport.connections == Connections(active=0, idle=0)


@pytest.mark.parametrize(
    "stray", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray", b"\r\n\r\n"]
)
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_bytes_behind_the_end_close_the_connection(
    fault_upstream: FaultUpstream, transport: HttpTransport, stray: bytes, framing: str
) -> None:
    sized = OK + b"Content-Length: 4\r\n\r\nbody"
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"body") + b"0\r\n\r\n"
    first = sized if framing == "sized" else chunked
    fault_upstream.script(PATH, [Send(first + stray)], [Whole(b"second")])
    assert fetch(transport).body == b"body"
    assert fetch(transport).body == b"second"


def test_bytes_that_come_while_idle_are_never_an_answer(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    late = OK + b"Content-Length: 5\r\n\r\nstray"
    first = OK + b"Content-Length: 4\r\n\r\nbody"
    fault_upstream.script(PATH, [Send(first), Wait(0.1), Send(late)], [Whole(b"second")])
    assert fetch(transport).body == b"body"
    fault_upstream.wait_event("sent")
    with contextlib.suppress(AssertionError):
        fault_upstream.wait_event("closed", seconds=0.3)  # only gives the late bytes time to arrive
    assert fetch(transport).body == b"second"


@pytest.mark.parametrize("how", [Cut(), Reset()], ids=["cut", "reset"])
@pytest.mark.parametrize(
    "head",
    [
        Head(200, {"Content-Length": "10"}),
        Head(200),
        Head(200, {"Content-Length": "10", "Connection": "close"}),
    ],
)
def test_cut_body_raises_and_never_ends(
    fault_upstream: FaultUpstream, transport: HttpTransport, head: Head, how: Any
) -> None:
    fault_upstream.script(PATH, [head, Chunk(b"abc"), how])
    reply = transport.open(POST, Call(LIMITS))
    with contextlib.closing(reply), pytest.raises(UpstreamCut):
        while reply.read_some():
            pass
    assert transport.connections == Connections(active=0, idle=0)


def test_one_read_takes_all_that_has_arrived(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    parts = b"".join(chunk(b"%d" % (n % 10)) for n in range(1000))
    fault_upstream.script(
        PATH, [Send(OK + b"Transfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n")]
    )
    reply = transport.open(POST, Call(LIMITS))
    reads = 0
    with contextlib.closing(reply):
        while reply.read_some():
            reads += 1
    assert reads <= 5


def test_reading_with_a_limit_says_that_nothing_came(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [Wait(1), Head(), Wait(1), Chunk(b"a")])
    reply = transport.open(POST, Call(LIMITS), head_wait_s=0.1)
    with contextlib.closing(reply):
        assert reply.status == 0
        assert not reply.wait_head(0.05)
        assert reply.wait_head()
        assert reply.read_some(0.05) is None
        assert reply.read_some() == b"a"
        assert reply.read_some() == b""


# --- Bodies of requests ---------------------------------------------------------------------------


def test_requests_that_follow_each_other_share_no_header(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [Json({})], [Json({})], [Json({})])
    for name in ("first", "second"):
        fetch(
            transport,
            UpstreamRequest("POST", PATH, b"x" * len(name), headers=(("User-Agent", name),)),
        )
    fetch(transport, UpstreamRequest("POST", PATH))
    seen = [
        (each.header("user-agent"), each.header("content-length"))
        for each in fault_upstream.requests
    ]
    assert seen == [("first", "5"), ("second", "6"), ("ollama-proxy", "0")]


def test_sized_upload_is_sent_as_it_comes(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    request = UpstreamRequest("POST", PATH, iter([b"ab", b"", b"cd"]), length=4)
    fault_upstream.script(PATH, [Json({})])
    assert fetch(transport, request).status == 200
    seen = fault_upstream.wait_for_request(1, PATH)
    assert (seen.body, seen.header("content-length"), seen.header("transfer-encoding")) == (
        b"abcd",
        "4",
        None,
    )


def test_upload_without_a_length_is_chunked(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [Json({})])
    assert fetch(transport, UpstreamRequest("POST", PATH, iter([b"ab", b"", b"cd"]))).status == 200
    seen = fault_upstream.wait_for_request(1, PATH)
    assert (seen.body, seen.header("content-length"), seen.header("transfer-encoding")) == (
        b"abcd",
        None,
        "chunked",
    )


@pytest.mark.parametrize("length", [50_000_000, None], ids=["sized", "chunked"])
@pytest.mark.parametrize("closes", [True, False])
def test_answer_that_comes_before_the_upload_ended_is_the_answer(
    fault_upstream: FaultUpstream, transport: HttpTransport, length: int | None, closes: bool
) -> None:
    refusal = [Json({"error": "too large"}, 413)]
    fault_upstream.script(PATH, [NoReadBody(), *([CloseAfter()] if closes else []), *refusal])
    parts = (b"x" * 100_000 for _ in range(500))  # more than the buffers of two sockets hold
    answer = fetch(transport, UpstreamRequest("POST", PATH, parts, length=length))
    assert (answer.status, answer.body) == (413, b'{"error":"too large"}')
    assert transport.connections == Connections(active=0, idle=0)


def test_answer_to_a_large_body_that_is_not_read_is_the_answer(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [NoReadBody(), Json({"error": "too large"}, 413)])
    answer = fetch(transport, UpstreamRequest("POST", PATH, b"x" * 50_000_000))
    assert (answer.status, answer.body) == (413, b'{"error":"too large"}')


def test_upload_that_stops_is_never_completed(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [ReadBody(), Json({})])

    def parts() -> Iterator[bytes]:
        yield b"x" * 1000
        raise KeyError("the client has left")

    with pytest.raises(KeyError):
        fetch(transport, UpstreamRequest("POST", PATH, parts()))
    seen = fault_upstream.wait_for_request(1, PATH)
    fault_upstream.wait_event("peer_closed", seen.connection)
    assert not seen.complete
    assert transport.connections == Connections(active=0, idle=0)


# --- Limits and leaving ---------------------------------------------------------------------------


def test_silence_is_a_timeout(fault_upstream: FaultUpstream, transport: HttpTransport) -> None:
    fault_upstream.script(PATH, [WaitForPeerClose()])
    with pytest.raises(UpstreamTimeout):
        fetch(transport, limits=Timeouts(first_byte_s=0.2))
    assert transport.connections == Connections(active=0, idle=0)


@pytest.mark.parametrize("phase", ["head", "body"])
def test_leaving_wakes_whoever_waits(
    fault_upstream: FaultUpstream, transport: HttpTransport, phase: str
) -> None:
    fault_upstream.script(
        PATH, [*([] if phase == "head" else [Head(), Chunk(b"a")]), WaitForPeerClose()]
    )
    call = Call(LIMITS)
    gevent.spawn_later(0.2, call.leave)
    with pytest.raises(ClientGone):
        read(transport.open(POST, call))
    fault_upstream.wait_event("peer_closed")
    assert transport.connections == Connections(active=0, idle=0)


def test_call_that_was_left_is_not_sent_at_all(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    call = Call(LIMITS)
    call.leave()
    with pytest.raises(ClientGone):
        transport.open(POST, call)
    assert fault_upstream.requests == []


def test_refused_connection_is_told_apart(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.refuse()
    with pytest.raises(UpstreamConnect):
        fetch(transport)
    assert transport.connections == Connections(active=0, idle=0)


# --- The pool -------------------------------------------------------------------------------------


def test_connection_is_used_again_and_the_last_one_first(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    first, second = (transport.open(POST, Call(LIMITS)) for _ in range(2))
    read(first)
    read(second)
    assert transport.connections == Connections(active=0, idle=2)
    fetch(transport)
    assert [seen.connection for seen in fault_upstream.requests] == [1, 2, 2]


def test_answer_that_was_not_read_to_its_end_costs_its_connection(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [Head(), Chunk(b"a"), WaitForPeerClose()])
    transport.open(POST, Call(LIMITS)).close()
    assert transport.connections == Connections(active=0, idle=0)
    fault_upstream.wait_event("peer_closed", 1)


def test_the_idle_limit_begins_anew_with_bytes_and_not_with_a_heartbeat() -> None:
    answers = iter([b"a", None, b"b"])
    limits: list[float] = []

    def receive_body(call: Call, idle_at: float, wait_s: float | None) -> bytes | None:
        limits.append(idle_at)
        return next(answers)

    connection: Any = SimpleNamespace(receive_body=receive_body)
    reply = HttpReply(cast(Pool, None), connection, Call(LIMITS), LIMITS.idle_s, inf)
    assert [reply.read_some(0.1) for _ in range(3)] == [b"a", None, b"b"]
    assert limits[0] < limits[1] == limits[2]


def test_close_closes_what_is_idle_now_and_what_is_active_later(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fetch(transport)
    running = transport.open(POST, Call(LIMITS))
    idle = transport.open(POST, Call(LIMITS))
    read(idle)
    transport.close()
    fault_upstream.wait_event("peer_closed", 2)
    assert read(running).status == 200
    assert transport.connections == Connections(active=0, idle=0)


def test_idle_connection_that_was_closed_is_replaced_in_silence(transport: HttpTransport) -> None:
    with FaultUpstream(close_idle_after_s=0.05) as upstream:
        own = HttpTransport(upstream.url)
        for number in range(1, 31):
            assert fetch(own).status == 200
            if number % 2:
                wait_until(lambda: not upstream.connections_open)  # closed for certain

            else:
                # As long as the upstream's limit, so that its close and the request cross.
                time.sleep(0.05)
        own.close()
        assert sum(seen.path == PATH for seen in upstream.requests) == 30


@pytest.mark.parametrize("size", [2, 100_000])
def test_request_that_was_read_is_not_sent_again(
    fault_upstream: FaultUpstream, transport: HttpTransport, size: int
) -> None:
    fetch(transport)
    fault_upstream.script(PATH, [Cut()])
    with pytest.raises(UpstreamCut):
        fetch(transport, UpstreamRequest("POST", PATH, b"x" * size))
    assert [seen.connection for seen in fault_upstream.requests] == [1, 1]


def test_streamed_body_is_not_sent_twice(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fetch(transport)
    fault_upstream.script(PATH, [NoReadBody(), Cut()])
    with pytest.raises(UpstreamError):
        fetch(transport, UpstreamRequest("POST", PATH, iter([b"a"]), length=1))
    assert len(fault_upstream.requests) == 2


def test_pooled_connection_that_answered_something_is_not_tried_again(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fetch(transport)
    fault_upstream.script(PATH, [Send(b"HTTP/1.1 "), Cut()])
    with pytest.raises(UpstreamCut):
        fetch(transport)
    assert len(fault_upstream.requests) == 2


@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["cut", "reset"])
def test_request_that_ran_for_a_while_is_not_tried_again(
    fault_upstream: FaultUpstream, transport: HttpTransport, end: Any
) -> None:
    fetch(transport)
    fault_upstream.script(PATH, [Wait(1.1), end])
    with pytest.raises(UpstreamCut):
        fetch(transport)
    assert len(fault_upstream.requests) == 2


def test_environment_and_netrc_have_no_say(
    fault_upstream: FaultUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login evil password evil\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    transport = HttpTransport(fault_upstream.url, headers={"Authorization": "Bearer own-key"})
    assert fetch(transport).status == 200
    assert fault_upstream.wait_for_request(1, PATH).header("authorization") == "Bearer own-key"
    transport.close()


def test_cookies_of_an_answer_are_not_kept(
    fault_upstream: FaultUpstream, transport: HttpTransport
) -> None:
    fault_upstream.script(PATH, [Json({}, headers={"Set-Cookie": "sid=a; Path=/"})])
    fetch(transport)
    fetch(transport)
    assert fault_upstream.requests[1].header("cookie") is None


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_certificate_of_a_trusted_authority_is_accepted(authority: Authority) -> None:
    with FaultUpstream(ssl_context=authority.server("IP:127.0.0.1")) as upstream:
        with contextlib.closing(HttpTransport(upstream.url, tls=authority.client())) as transport:
            assert fetch(transport).status == 200
            assert fetch(transport).status == 200
        assert [seen.connection for seen in upstream.requests] == [1, 1]


def test_large_bodies_pass_both_ways_over_tls(authority: Authority) -> None:
    with FaultUpstream(ssl_context=authority.server("IP:127.0.0.1")) as upstream:
        upstream.script(PATH, [Whole(b"y" * 3_000_000)])
        with contextlib.closing(HttpTransport(upstream.url, tls=authority.client())) as transport:
            assert (
                len(fetch(transport, UpstreamRequest("POST", PATH, b"x" * 3_000_000)).body)
                == 3_000_000
            )
        assert len(upstream.wait_for_request(1, PATH).body) == 3_000_000


@pytest.mark.parametrize("certificate", REFUSED.values(), ids=REFUSED)
def test_certificate_that_proves_nothing_is_refused(
    authority: Authority, certificate: dict[str, Any]
) -> None:
    with FaultUpstream(ssl_context=authority.server(**certificate)) as upstream:
        with contextlib.closing(HttpTransport(upstream.url, tls=authority.client())) as transport:
            with pytest.raises(UpstreamConnect):
                fetch(transport)
            assert transport.connections == Connections(active=0, idle=0)
        upstream.stop()
        assert upstream.requests == []


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authority_named_by_a_variable_is_not_trusted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(authority.directory / "ca.crt"))
    with FaultUpstream(ssl_context=authority.server("IP:127.0.0.1")) as upstream:
        with (
            contextlib.closing(HttpTransport(upstream.url)) as transport,
            pytest.raises(UpstreamConnect),
        ):
            fetch(transport)


def test_upstream_that_never_finishes_its_handshake_is_given_up(
    fault_upstream: FaultUpstream,
) -> None:
    transport = HttpTransport(fault_upstream.url.replace("http:", "https:"))
    with contextlib.closing(transport), pytest.raises(UpstreamConnect):
        fetch(transport, limits=Timeouts(connect_s=0.3))


Found = list[tuple[int, int, int, str, Any]]


@pytest.fixture
def listening() -> Iterator[int]:
    """A port of 127.0.0.1 that takes connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


class Resolver:
    """Looks up names as a test says, and counts."""

    def __init__(self, answer: Callable[[], Found]) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self, *args: Any) -> Found:
        self.asked += 1
        gevent.sleep(0.05)
        return self.answer()


def resolver(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Found]) -> Resolver:
    made = Resolver(answer)
    monkeypatch.setattr(gsocket, "getaddrinfo", made)
    return made


def at(address: str, port: int, family: int = socket.AF_INET) -> Any:
    return (family, socket.SOCK_STREAM, 6, "", (address, port))


def unknown() -> Found:
    raise socket.gaierror(-2, "Name or service not known")


def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    names = resolver(monkeypatch, unknown)
    Host("127.0.0.1", listening).connect().close()
    with pytest.raises(OSError):
        Host("::1", 1).connect()
    assert names.asked == 0


def test_many_connections_are_one_look_up_at_a_time(
    monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    names = resolver(monkeypatch, lambda: [at("127.0.0.1", listening)])
    host = Host("box1", listening)
    for rounds in (1, 2):
        waiting = [gevent.spawn(host.connect) for _ in range(20)]
        for each in waiting:
            each.get().close()
        assert names.asked == rounds


def test_each_of_them_is_told_that_there_is_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = resolver(monkeypatch, unknown)
    host = Host("box1", 80)

    def failed() -> bool:
        with pytest.raises(socket.gaierror):
            host.connect()
        return True

    assert all(each.get() for each in [gevent.spawn(failed) for _ in range(5)])
    assert names.asked == 1


def test_who_gives_up_leaves_the_look_up_to_the_others(
    monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    names = resolver(monkeypatch, lambda: [at("127.0.0.1", listening)])
    host = Host("box1", listening)
    other = gevent.spawn(host.connect)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        host.connect()
    other.get().close()
    assert names.asked == 1


def test_the_next_address_is_tried_when_one_takes_no_connection(
    monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    resolver(
        monkeypatch,
        lambda: [at("::1", 1, socket.AF_INET6), at("127.0.0.1", 1), at("127.0.0.1", listening)],
    )
    with Host("box1", listening).connect() as connected:
        assert connected.getpeername() == ("127.0.0.1", listening)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 70 + ".example"])
def test_what_is_no_name_is_an_error_that_is_known(name: str) -> None:
    with pytest.raises((OSError, UnicodeError)):
        Host(name, 1).connect()
