"""Paths that mean one thing here and another one there: straight at the gateway and
through the shipped nginx."""

from __future__ import annotations

import json

import pytest

from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, encode_request, raw, request
from tests.rig.nginx import Nginx

TOKEN = "sk-team-token-1"
DIGEST = "sha256:" + "0" * 64
MESSAGES = [{"role": "user", "content": "hi"}]
BODY = json.dumps(
    {"messages": MESSAGES, "model": MODEL, "source": MODEL, "destination": MODEL, "stream": False}
    | {"max_tokens": 9, "input": "hi"}
).encode()

#: Every address that the gateway may ever ask the upstream for.
CONSTANTS = {
    *(
        f"/api/{name}"
        for name in "version status tags ps show generate chat embed embeddings".split()
    ),
    *(f"/api/{name}" for name in "pull push create copy delete".split()),
    f"/api/blobs/{DIGEST}",
}


shared_gateway = module_fixture(lambda shared_upstream: checked_gateway(shared_upstream, TOKEN))


@pytest.fixture(params=["straight", "nginx"])
def url(request: pytest.FixtureRequest, gateway: Gateway) -> str:
    """Where the client asks: the gateway itself, or the shipped nginx in front of it."""
    server: Gateway | Nginx = (
        gateway if request.param == "straight" else request.getfixturevalue("nginx")
    )
    return server.url


def foreign_paths(upstream: FaultUpstream) -> set[str]:
    return {seen.raw_path for seen in upstream.requests} - CONSTANTS


def changing_requests(upstream: FaultUpstream) -> list[str]:
    return [
        f"{seen.method} {seen.raw_path}"
        for seen in upstream.requests
        if seen.method not in ("GET", "HEAD")
    ]


def ask(url: str, method: str, path: str, token: str | None = TOKEN) -> Answer:
    body = BODY if method in ("POST", "DELETE") else None
    return request(url, method, path, body, bearer(token) if token else {})


@pytest.mark.parametrize(
    "name", ["..", ".", "../tags", "x/../../delete", "..%2f..%2fapi%2ftags", "%2e%2e", "x%00", ""]
)
@pytest.mark.parametrize(
    "prefix", ["/v1/models/", "/api/blobs/", "/api/user/keys/", "/api/experimental/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
def test_a_name_at_the_end_of_a_path_never_leaves_its_place(
    url: str, upstream: FaultUpstream, prefix: str, name: str, method: str
) -> None:
    assert ask(url, method, prefix + name).status in (400, 403, 404, 405)
    assert (foreign_paths(upstream), changing_requests(upstream)) == (set(), [])


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:abc",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "md5:" + "0" * 64,
        "sha256:" + "g" * 64,
        "x",
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_a_digest_is_a_digest(url: str, upstream: FaultUpstream, digest: str, method: str) -> None:
    assert ask(url, method, f"/api/blobs/{digest}").status == 400
    assert not [seen for seen in upstream.requests if "blobs" in seen.path]


@pytest.mark.parametrize("path", ["/api/tags", "/api/delete", "/k/wrong/api/tags"])
@pytest.mark.parametrize(
    "authority", ["http://evil.example", "http://gw", "https://gw:1", "http://user:pw@gw"]
)
def test_an_absolute_address_means_no_other_server(
    url: str, upstream: FaultUpstream, path: str, authority: str
) -> None:
    port = int(url.rpartition(":")[2])
    for token in (TOKEN, "wrong"):
        data = encode_request("gw", "GET", authority + path, None, bearer(token))
        status = int(raw(port, data).split()[1])
        # nginx hands on the path alone, and that is then a path like any other.
        assert status in ((200, 400, 401, 404, 405) if token == TOKEN else (400, 401, 404))
    assert foreign_paths(upstream) == set()
    assert changing_requests(upstream) == []


@pytest.mark.parametrize(
    "target", ["*", "api/tags", "//evil.example/api/tags", "gw:443", "?x", "/api/tags HTTP/1.1 x"]
)
def test_a_target_that_is_no_path_is_refused(
    url: str, upstream: FaultUpstream, target: str
) -> None:
    data = encode_request("gw", "GET", target, None, bearer(TOKEN))
    assert raw(int(url.rpartition(":")[2]), data).split()[1] in (b"400", b"404", b"405")
    assert [seen.path for seen in upstream.requests if seen.path != "/api/version"] == []


@pytest.mark.parametrize("byte", [0x01, 0x09, 0x0B, 0x7F, 0x80, 0xFF])
def test_odd_bytes_in_a_path_are_no_failure(url: str, upstream: FaultUpstream, byte: int) -> None:
    data = b"GET /api/tags" + bytes([byte]) + b" HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n"
    answer = raw(
        int(url.rpartition(":")[2]), data + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
    )
    assert answer.split()[1] in (b"400", b"404")
    assert [seen.path for seen in upstream.requests if seen.path != "/api/version"] == []
