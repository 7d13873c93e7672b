"""A client that leaves an upload is noticed upstream within a second.

Calls to models that are left, in every phase and by crowds, are rows of tests/reliability.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.rig.calls import DIGEST, TOKEN, access_line, warm_up
from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import FaultUpstream, ReadBody, WaitForPeerClose
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
