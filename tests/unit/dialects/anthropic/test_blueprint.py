"""The routes of Anthropic's API."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects.anthropic.blueprint import ANTHROPIC
from tests.rig.in_process import TOKEN, InProcess

BODY = {"model": "demo", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def test_a_message_is_streamed_only_if_asked(demo_app: InProcess) -> None:
    single = demo_app.ask("POST", "/v1/messages", BODY)
    streamed = demo_app.ask("POST", "/v1/messages", BODY | {"stream": True})
    assert (single.json["type"], single.json["role"], single.json["model"]) == ("message", "assistant", "demo")
    assert streamed.data.startswith(b"event: message_start\n")
    assert streamed.data.rstrip().endswith(b'data: {"type":"message_stop"}')


def test_tokens_are_estimated_without_the_model(demo_app: InProcess) -> None:
    answer = demo_app.ask("POST", "/v1/messages/count_tokens", {"model": "demo", "messages": BODY["messages"]})
    assert answer.json["input_tokens"] > 0


@pytest.mark.parametrize("path", ["/v1/messages", "/anthropic/v1/messages"])
def test_anthropics_key_header_and_version(demo_app: InProcess, path: str) -> None:
    answer = demo_app.ask("POST", path, BODY, token=None, x_api_key=TOKEN, anthropic_version="2026-01-01")
    assert (answer.status_code, answer.headers["anthropic-version"]) == (200, "2026-01-01")
    assert answer.headers["request-id"] == answer.headers["X-Request-Id"]


def test_errors_have_anthropics_shape(demo_app: InProcess) -> None:
    answer = demo_app.ask("POST", "/v1/messages", {"model": "demo"})
    assert (answer.status_code, answer.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "is_its"),
    [
        ("/v1/messages", True),
        ("/v1/v1/messages/count_tokens", True),
        ("/anthropic/nothing", True),
        ("/v1/messagesx", False),
        ("/v1/models", False),
        ("/api/tags", False),
    ],
)
def test_requests_are_recognised_by_their_path(path: str, is_its: bool) -> None:
    assert ANTHROPIC.recognises({"PATH_INFO": path}) is is_its


@pytest.mark.parametrize(
    ("path", "is_shared"), [("/v1/models/m", True), ("/v1/files", True), ("/v1/embeddings", False)]
)
def test_shared_addresses_need_the_version_header(path: str, is_shared: bool) -> None:
    assert ANTHROPIC.recognises({"PATH_INFO": path, "HTTP_ANTHROPIC_VERSION": "2023-06-01"}) is is_shared


def test_pages_may_read_its_headers() -> None:
    assert ANTHROPIC.exposed_headers == ("request-id", "anthropic-version")
