"""Paths that mean one thing to nginx and another one to the gateway, and targets that are none."""

from __future__ import annotations

from itertools import product

import pytest

from tests.app.test_paths import (
    LEAVING,
    NO_DIGESTS,
    body_for,
    changing_requests,
    foreign_paths,
)
from tests.golden.face import TOKEN
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, encode_request, raw, request
from tests.rig.nginx import Nginx
from tests.rig.tables import check_rows


@pytest.fixture(params=["straight", "nginx"])
def port(request: pytest.FixtureRequest, gateway: Gateway, nginx: Nginx) -> int:
    """The gateway itself, or the shipped nginx in front of it."""
    server: Gateway | Nginx = gateway if request.param == "straight" else nginx
    return int(server.url.rpartition(":")[2])


def asked(upstream: FaultUpstream) -> list[str]:
    """Paths that the upstream was asked for, without the gateway's checks of its health."""
    return [seen.path for seen in upstream.requests if seen.path != "/api/version"]


def test_nginx_does_not_lead_a_name_at_the_end_of_a_path_elsewhere(
    nginx: Nginx, upstream: FaultUpstream
) -> None:
    def check(method: str, path: str) -> None:
        answer = request(nginx.url, method, path, body_for(method), bearer(TOKEN))
        assert answer.status in (400, 403, 404, 405)
        assert (foreign_paths(upstream), changing_requests(upstream)) == (set(), [])

    blobs = [(method, f"/api/blobs/{digest}") for method, digest in NO_DIGESTS]
    check_rows(LEAVING + blobs, check)


def test_an_absolute_address_means_no_other_server(port: int, upstream: FaultUpstream) -> None:
    def check(authority: str, path: str, token: str) -> None:
        data = encode_request("gw", "GET", authority + path, None, bearer(token))
        status = int(raw(port, data).split()[1])
        # nginx hands on the path alone, and that is then a path like any other.
        assert status in ((200, 400, 401, 404, 405) if token == TOKEN else (400, 401, 404))
        assert foreign_paths(upstream) == set()
        assert changing_requests(upstream) == []

    authorities = ("http://evil.example", "http://gw", "https://gw:1", "http://user:pw@gw")
    paths = ("/api/tags", "/api/delete", "/k/wrong/api/tags")
    check_rows(product(authorities, paths, (TOKEN, "wrong")), check)


def test_a_target_that_is_no_path_is_refused(port: int, upstream: FaultUpstream) -> None:
    def check(target: str) -> None:
        data = encode_request("gw", "GET", target, None, bearer(TOKEN))
        assert raw(port, data).split()[1] in (b"400", b"404", b"405")
        assert asked(upstream) == []

    targets = ("*", "api/tags", "//evil.example/api/tags", "gw:443", "?x", "/api/tags HTTP/1.1 x")
    check_rows([(target,) for target in targets], check)


def test_odd_bytes_in_a_path_are_no_failure(port: int, upstream: FaultUpstream) -> None:
    def check(byte: int) -> None:
        head = b"GET /api/tags%c HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n" % byte
        answer = raw(port, head + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n")
        assert answer.split()[1] in (b"400", b"404")
        assert asked(upstream) == []

    check_rows([(byte,) for byte in (0x01, 0x09, 0x0B, 0x7F, 0x80, 0xFF)], check)
