"""A client that leaves an upload is noticed upstream within a second, and one that
stops reading holds no place.

Calls to models that are left, in every phase and by crowds, are rows of tests/reliability.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.rig.calls import CHAT_LINE, DIGEST, FACES, TOKEN, Face, access_line, ask, warm_up
from tests.rig.checked import checked_gateway
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, FaultUpstream, Flood, Json, ReadBody, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, bearer, open_stream
from tests.rig.nginx import Nginx

#: the promise: seconds between a client's leaving and the close of the connection to the upstream
NOTICED_S = 1.0


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """One gateway for the module; nothing of what its tests did may be left at the end."""
    unsaid = ("Traceback", "internal_error")
    limits = {"send_idle_s": 1.5}
    with checked_gateway(
        shared_upstream, TOKEN, warm=warm_up, unsaid=unsaid, workers=1, timeouts=limits
    ) as gateway:
        yield gateway


def leave(stream: Stream, upstream: FaultUpstream, path: str) -> None:
    """Close the client's connection and check the promise."""
    connection = upstream.wait_for_request(1, path).connection
    left_at = time.monotonic()
    stream.close()
    assert upstream.wait_peer_closed(connection) - left_at < NOTICED_S


def expect_client_gone(gateway: Gateway, request_id: str) -> None:
    assert access_line(gateway, request_id)["state"] == "client_gone"


def upload(gateway: Gateway, request_id: str, framing: tuple[str, str], sent: bytes) -> Stream:
    """Send the head of a blob upload and this much of its body."""
    headers = [("X-Request-Id", request_id), *bearer(TOKEN).items(), framing]
    stream = open_stream(
        gateway.url, "POST", f"/api/blobs/{DIGEST}", None, headers, wait_for_head=False
    )
    stream.sock.sendall(sent)
    return stream


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (("Content-Length", "5000000"), b"x" * 500_000),
        (("Transfer-Encoding", "chunked"), b"%x\r\n%s\r\n" % (500_000, b"x" * 500_000)),
        (("Transfer-Encoding", "chunked"), b"%x\r\n%s" % (5_000_000, b"x" * 500_000)),
    ],
    ids=["sized", "between chunks", "inside a chunk"],
)
def test_client_leaves_in_the_middle_of_an_upload(
    gateway: Gateway,
    upstream: FaultUpstream,
    request_id: str,
    framing: tuple[str, str],
    sent: bytes,
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [ReadBody(), WaitForPeerClose()])
    leave(upload(gateway, request_id, framing, sent), upstream, f"/api/blobs/{DIGEST}")
    expect_client_gone(gateway, request_id)


def test_client_leaves_after_an_upload(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [ReadBody(), WaitForPeerClose()])
    stream = upload(gateway, request_id, ("Content-Length", "10"), b"0123456789")
    leave(stream, upstream, f"/api/blobs/{DIGEST}")
    expect_client_gone(gateway, request_id)


def test_an_upload_that_was_left_is_never_completed_upstream(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [ReadBody(), WaitForPeerClose()])
    part = b"%x\r\n%s\r\n" % (500_000, b"x" * 500_000)
    leave(
        upload(gateway, request_id, ("Transfer-Encoding", "chunked"), part),
        upstream,
        f"/api/blobs/{DIGEST}",
    )
    assert not upstream.wait_for_request(1, f"/api/blobs/{DIGEST}").complete


def test_client_of_nginx_leaves_an_upload(
    gateway: Gateway, nginx: Nginx, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [ReadBody(), WaitForPeerClose()])
    headers = {**bearer(TOKEN), "X-Request-Id": request_id}
    stream = open_stream(
        nginx.url, "POST", f"/api/blobs/{DIGEST}", b"0" * 100_000, headers, wait_for_head=False
    )
    leave(stream, upstream, f"/api/blobs/{DIGEST}")
    expect_client_gone(gateway, request_id)


# --- Clients that stop reading --------------------------------------------------------------------


LONG_LINE = (
    json.dumps({**CHAT_LINE, "message": {"role": "assistant", "content": "x" * 4000}}).encode()
    + b"\n"
)


def test_stalled_reader_of_a_large_single_answer_is_cut(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    vectors = [[0.123456789] * 4000] * 300
    upstream.script(
        "/api/embed", [Json({"model": "m", "embeddings": vectors, "prompt_eval_count": 1})]
    )
    face = Face(
        "/v1/embeddings",
        {"model": "m", "input": ["hi"] * 300, "encoding_format": "float"},
        "/api/embed",
        {},
    )
    with ask(gateway.url, face, request_id, stream=False, receive_buffer=8192):
        line = wait_until(
            lambda: [each for each in gateway.log_lines("access") if each["id"] == request_id],
            8,
            "a client that does not read holds its place",
        )
    assert line[0]["state"] == "client_gone"


def test_slow_but_steady_reader_is_not_cut(gateway: Gateway, upstream: FaultUpstream) -> None:
    end = json.dumps({**CHAT_LINE, "done": True, "done_reason": "stop"}).encode() + b"\n"
    upstream.script("/api/chat", [Flood(LONG_LINE, limit_bytes=8_000_000), Chunk(end)])
    with ask(gateway.url, FACES["native chat"], receive_buffer=8192) as stream:
        began, read = time.monotonic(), 0
        while time.monotonic() - began < 4 and (data := stream.read_some()):
            read += len(data)
            time.sleep(0.01)  # this is the slow client itself, not a wait for something
        rest = stream.read_all(20)
    assert stream.complete
    assert read + len(rest) > 8_000_000
