"""S36: web pages as callers of a gateway without tokens, and of one that allows other pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reliability.rig import Rig, Row, nginx_decides
from tests.rig.boxes import PROMPTS
from tests.rig.calls import DIGEST, EMBEDDINGS, FACES

EVIL = "https://evil.example"
#: What marks a request of a page elsewhere: an Origin, what browsers say of the site, and a
#: name of the page's own.
MARKS = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site"},
    {"Host": "evil.example:8080"},
    {
        "Host": "evil.example:8080",
        "Origin": "http://evil.example:8080",
        "Sec-Fetch-Site": "same-origin",
    },
    {"Host": "localhost.evil.example"},
]
SIMPLE_TYPES = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(config={"auth": {"enabled": False}, "server": {"host": "127.0.0.1"}}) as rig:
        yield rig


@nginx_decides
def test_s36_pages_and_a_gateway_without_tokens(row: Row) -> None:
    """Whatever a page of another site, of another port or behind DNS rebinding sends is 403 before
    Ollama hears of it, with no CORS headers; programs of this machine need nothing."""
    calls = [
        (face.path, {**face.body, "stream": False})
        for face in (*FACES.values(), *EMBEDDINGS.values())
    ]
    changes = [
        ("/api/create", {"model": "n", "from": "m"}),
        ("/api/pull", {"model": "m"}),
        (f"/api/blobs/{DIGEST}", {}),
    ]
    refused = 0
    for marks in MARKS:
        for path, body in (*calls, *changes):
            for media_type in SIMPLE_TYPES:
                answer = row.ask(
                    "POST", path, body, {**marks, "Content-Type": media_type}, token=None
                )
                assert answer.status == 403, (marks, path, media_type)
                assert not [
                    name for name, _ in answer.headers if name.lower().startswith("access-control-")
                ]
                refused += 1
        for path in ("/", "/api/tags", "/v1/models", "/health"):
            assert row.ask("GET", path, headers=marks, token=None).status == 403, (marks, path)
            preflight = {**marks, "Access-Control-Request-Method": "POST"}
            assert row.ask("OPTIONS", path, headers=preflight, token=None).status == 403, (
                marks,
                path,
            )
    assert not [
        seen.path for seen in row.upstream.requests if seen.path in PROMPTS or seen.method == "POST"
    ]
    for path, body in calls:
        for headers in ({}, {"Host": "localhost:11434"}, {"Content-Type": SIMPLE_TYPES[1]}):
            assert row.ask("POST", path, body, headers, token=None).status == 200, path
    row.measured("requests of pages, all refused", refused, "")
