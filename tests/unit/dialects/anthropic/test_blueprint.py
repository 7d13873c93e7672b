"""The routes of Anthropic's API."""

from __future__ import annotations

import pytest

from ollama_proxy.coordination import Allowance, Remaining
from ollama_proxy.dialects.anthropic.blueprint import ANTHROPIC
from tests.rig.in_process import TOKEN, InProcess

BODY = {"model": "demo", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def test_a_message_is_streamed_only_if_asked(demo_app: InProcess) -> None:
    single = demo_app.ask("POST", "/v1/messages", BODY)
    streamed = demo_app.ask("POST", "/v1/messages", BODY | {"stream": True})
    assert (single.json["type"], single.json["role"], single.json["model"]) == (
        "message",
        "assistant",
        "demo",
    )
    assert streamed.data.startswith(b"event: message_start\n")
    assert streamed.data.rstrip().endswith(b'data: {"type":"message_stop"}')


def test_tokens_are_estimated_without_the_model(demo_app: InProcess) -> None:
    answer = demo_app.ask(
        "POST", "/v1/messages/count_tokens", {"model": "demo", "messages": BODY["messages"]}
    )
    assert answer.json["input_tokens"] > 0


@pytest.mark.parametrize("path", ["/v1/messages", "/anthropic/v1/messages"])
def test_anthropics_key_header_and_version(demo_app: InProcess, path: str) -> None:
    answer = demo_app.ask(
        "POST", path, BODY, token=None, x_api_key=TOKEN, anthropic_version="2026-01-01"
    )
    assert (answer.status_code, answer.headers["anthropic-version"]) == (200, "2026-01-01")
    assert answer.headers["request-id"] == answer.headers["X-Request-Id"]


def test_errors_have_anthropics_shape(demo_app: InProcess) -> None:
    answer = demo_app.ask("POST", "/v1/messages", {"model": "demo"})
    assert (answer.status_code, answer.json["error"]["type"]) == (400, "invalid_request_error")


def test_pages_may_read_its_headers() -> None:
    sent = ANTHROPIC.errors.allowance_fields(Allowance(Remaining(1, 1, 1), Remaining(1, 1, 1)))
    assert set(ANTHROPIC.exposed_headers) == {"request-id", "anthropic-version", *dict(sent)}
