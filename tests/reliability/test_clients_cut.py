"""Requests that end before they are whole, and requests that no route takes."""

from __future__ import annotations

import itertools
import json

import pytest

from ollama_proxy.admin import PAGE_SCOPES
from ollama_proxy.admin import SCOPES as ADMIN_SCOPES
from ollama_proxy.server.app import create_app
from ollama_proxy.settings.schema import Settings
from tests.reliability.rig import TOKEN, Row, nginx_decides
from tests.rig import chunk
from tests.rig.calls import EMBEDDINGS, FACES, Face
from tests.rig.crowd import Visitor
from tests.rig.errors import assert_error
from tests.rig.http_client import bearer, encode_request, raw

CUT_FACES = [*FACES.values(), *EMBEDDINGS.values()]


def cut_short(row: Row, face: Face, framing: tuple[str, str], sent: bytes) -> None:
    """A body that ends before its framing says so is 400, reaches nobody and costs nothing. nginx
    only closes such a connection: its client has closed it first."""
    id = row.new_id() if row.door == "gateway" else "cut-short"
    headers = [
        *bearer(TOKEN).items(),
        ("X-Request-Id", id),
        ("Content-Type", "application/json"),
        framing,
    ]
    head = encode_request(f"127.0.0.1:{row.port}", "POST", face.path, None, headers)
    received = raw(row.port, head + sent, half_close=True)
    if row.door == "nginx":
        assert received == b""
    else:
        assert_error(Visitor(received=bytearray(received)).answer(), face.dialect, 400)
        line = row.record(id)
        assert line["state"] in ("refused", "client_gone") and line["status"] == 400
        assert line["prompt_eval_count"] is None and line["eval_count"] is None
    assert [seen for seen in row.upstream.requests if seen.method == "POST"] == []


@nginx_decides
@pytest.mark.parametrize("size", [10, None], ids=["ten bytes", "complete JSON"])
def test_c9_body_is_shorter_than_its_length(row: Row, size: int | None) -> None:
    for face in CUT_FACES:
        body = json.dumps(face.body).encode()
        cut_short(row, face, ("Content-Length", str(len(body) + 90)), body[:size])


@nginx_decides
@pytest.mark.parametrize("where", ["in a chunk", "behind a chunk", "before the first"])
def test_c10_chunked_body_stops_in_the_middle(row: Row, where: str) -> None:
    for face in CUT_FACES:
        body = json.dumps(face.body).encode()
        sent = {
            "in a chunk": b"fff\r\n" + body,
            "behind a chunk": chunk(body),
            "before the first": b"",
        }[where]
        cut_short(row, face, ("Transfer-Encoding", "chunked"), sent)


def post_only_routes() -> list[str]:
    """The addresses of work, of which there is nothing to GET."""
    rules = create_app(Settings()).url_map.iter_rules()
    others = {"native.refused", "native.blobs", *ADMIN_SCOPES, *PAGE_SCOPES}
    work = [rule for rule in rules if rule.endpoint not in others]
    return sorted(
        rule.rule for rule in work if {"POST", "GET"} & (rule.methods or set()) == {"POST"}
    )


def test_c16_wrong_methods_on_routes_for_work(row: Row) -> None:
    paths = post_only_routes()
    assert len(paths) >= 12
    told = {}
    for path, method in itertools.product(
        paths, ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
    ):
        answer = row.ask(method, path, token=None if method == "OPTIONS" else TOKEN)
        told[method, path] = (answer.status, "POST" in (answer.headers.get("Allow") or ""))
    expected = {
        (method, path): (204 if method == "OPTIONS" else 405, True) for method, path in told
    }
    assert told == expected
    assert {seen.path for seen in row.upstream.requests} <= {"/api/version", "/api/tags", "/api/ps"}
