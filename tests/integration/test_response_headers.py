"""No header of an upstream controls nginx, in front of the gateway and by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.test_response_headers import (
    FOREIGN,
    STREAM,
    STREAMED,
    WHOLE,
    assert_only_ours,
    names_of,
    script_with_foreign_headers,
)
from tests.golden.face import TOKEN
from tests.rig.fault_upstream import FaultUpstream, Head, Send
from tests.rig.http_client import bearer, request
from tests.rig.nginx import Nginx
from tests.rig.tables import check_rows


def test_no_foreign_header_passes_through_nginx(nginx: Nginx, upstream: FaultUpstream) -> None:
    def check(name: str) -> None:
        method, path, body = WHOLE[name]
        script_with_foreign_headers(upstream, path)
        answer = request(nginx.url, method, path, body, bearer(TOKEN))
        assert answer.status == 200
        assert_only_ours(answer)

    check_rows([(name,) for name in WHOLE], check)


def test_no_foreign_header_of_a_stream_passes_through_nginx(
    nginx: Nginx, upstream: FaultUpstream
) -> None:
    """With `X-Accel-Limit-Rate: 1`, nginx would send one byte a second."""

    def check(path: str) -> None:
        body = STREAMED[path] | {"stream": True}
        answer = request(nginx.url, "POST", path, body, bearer(TOKEN), timeout=10)
        assert answer.complete and answer.body.count(b"hello") >= 1
        assert_only_ours(answer)

    upstream.script("/api/chat", STREAM)
    check_rows([(path,) for path in STREAMED], check)


def test_nginx_obeys_no_upstream(nginx_alone: Nginx) -> None:
    """Should another program answer in the gateway's place, nginx neither serves its own
    files nor slows down."""
    answer = request(nginx_alone.url, "GET", "/api/tags", headers=bearer(TOKEN), timeout=10)
    assert (answer.status, answer.text) == (200, "x" * 2000)
    assert not [name for name in names_of(answer) if name.startswith("x-accel-")]


@pytest.fixture
def nginx_alone(tmp_path: Path) -> Iterator[Nginx]:
    """nginx without the gateway: with an upstream that tries to control it, and a file
    that it must not serve."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("INTERNAL")
    location = (
        f"\n    location /secret/ {{ internal; alias {tmp_path}/secret/; }}\n    location / {{"
    )
    with FaultUpstream() as server:
        head = {"Content-Type": "application/json", "Content-Length": "2000", **FOREIGN}
        server.script("/api/tags", [Head(200, head, chunked=False), Send(b"x" * 2000)])
        with Nginx(
            tmp_path, f"127.0.0.1:{server.port}", {"\n    location / {": location}
        ) as running:
            yield running
