"""Heads of answers that may pass, and those that may not."""

from __future__ import annotations

from typing import cast

import pytest
from flask import Response

from ollama_proxy.errors import UpstreamAuthError, UpstreamError
from ollama_proxy.gateway.delivery import SSE
from ollama_proxy.gateway.responses import check_head, forward_headers, streamed, whole
from ollama_proxy.upstreams.base import Reply


class Head:
    """An answer of which only the head is there."""

    def __init__(self, status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]


def reply(status: int = 200, **headers: str) -> Reply:
    return cast(Reply, Head(status, **headers))


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "application/x-ndjson", ""],
)
def test_expected_types_pass(content_type: str) -> None:
    assert check_head(reply(content_type=content_type)) == content_type


@pytest.mark.parametrize(
    "head",
    [
        {"content_type": "text/html"},
        {"content_type": "application/json, text/html"},
        {"content_type": "application/json; a=b, text/html"},
        {"content_type": "application/json", "content_encoding": "gzip"},
    ],
)
def test_other_answers_are_a_fault_of_the_upstream(head: dict[str, str]) -> None:
    with pytest.raises(UpstreamError):
        check_head(reply(**head))


@pytest.mark.parametrize("status", [401, 402, 407])
def test_a_demand_for_credentials_is_not_the_clients_affair(status: int) -> None:
    with pytest.raises(UpstreamAuthError):
        check_head(reply(status, content_type="application/json"))


def test_only_headers_that_are_meant_for_clients_are_forwarded() -> None:
    response = Response()
    forward_headers(
        reply(retry_after="7", set_cookie="a=b", x_accel_redirect="/etc", server="x"), response
    )
    assert response.headers["Retry-After"] == "7"
    assert not {"Set-Cookie", "X-Accel-Redirect", "Server"} & set(response.headers.keys())


def test_streams_are_not_buffered() -> None:
    assert streamed(iter([b"a"]), SSE).headers["X-Accel-Buffering"] == "no"
    assert (whole(b"{}").content_type, whole(b"{}", status=503).status_code) == (
        "application/json",
        503,
    )
