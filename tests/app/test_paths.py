"""Paths that mean one thing here and another one there."""

from __future__ import annotations

import json
from itertools import product

from tests.golden.face import TOKEN
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.tables import check_rows

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

NAMES = ("..", ".", "../tags", "x/../../delete", "..%2f..%2fapi%2ftags", "%2e%2e", "x%00", "")
PREFIXES = ("/v1/models/", "/api/blobs/", "/api/user/keys/", "/api/experimental/")
#: Names at the end of a path that would lead to another place: method and path.
LEAVING = [
    (method, prefix + name)
    for method, prefix, name in product(("GET", "POST", "DELETE", "HEAD"), PREFIXES, NAMES)
]
DIGESTS = (
    "sha256:abc",
    "sha256:" + "0" * 63,
    "sha256:" + "0" * 65,
    "md5:" + "0" * 64,
    "sha256:" + "g" * 64,
    "x",
)
NO_DIGESTS = list(product(("HEAD", "POST"), DIGESTS))


def body_for(method: str) -> bytes | None:
    """A body that every route could read, for methods that have one."""
    return BODY if method in ("POST", "DELETE") else None


def foreign_paths(upstream: FaultUpstream) -> set[str]:
    return {seen.raw_path for seen in upstream.requests} - CONSTANTS


def changing_requests(upstream: FaultUpstream) -> list[str]:
    return [
        f"{seen.method} {seen.raw_path}"
        for seen in upstream.requests
        if seen.method not in ("GET", "HEAD")
    ]


def test_a_name_at_the_end_of_a_path_never_leaves_its_place(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(method: str, path: str) -> None:
        answer = gateway.request(method, path, body_for(method), bearer(TOKEN))
        assert answer.status in (400, 403, 404, 405)
        assert (foreign_paths(upstream), changing_requests(upstream)) == (set(), [])

    check_rows(LEAVING, check)


def test_a_digest_is_a_digest(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    def check(method: str, digest: str) -> None:
        path = f"/api/blobs/{digest}"
        assert gateway.request(method, path, body_for(method), bearer(TOKEN)).status == 400
        assert not [seen for seen in upstream.requests if "blobs" in seen.path]

    check_rows(NO_DIGESTS, check)
