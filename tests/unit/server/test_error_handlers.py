"""Exceptions as answers: status, headers, and the shape that the path promises."""

from __future__ import annotations

import logging
from typing import NoReturn

import pytest

from ollama_proxy.errors import (
    BUSY_RETRY_S,
    MISSING_TOKEN_IN_ADDRESS,
    GatewayError,
    Overloaded,
    QuotaExceeded,
    RateLimited,
)
from tests.rig.fixtures import function_fixture
from tests.rig.in_process import InProcess, in_process

app = function_fixture(in_process)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/v1/models", "one /v1 too many"),
        ("/v1/v1/messages", "one /v1 too many"),
        *((path, "ends with /v1") for path in ("/chat/completions", "/responses", "/embeddings")),
        ("/messages", "The path is /v1/messages: let the base URL of this client end with /v1."),
        ("/messages/count_tokens", "The path is /v1/messages/count_tokens"),
        ("/v1/api/chat", "The base URL of Ollama's clients has no /v1."),
    ],
)
def test_an_address_that_is_nearly_right_gets_a_hint(app: InProcess, path: str, hint: str) -> None:
    answer = app.ask("POST", path)
    assert (answer.status_code, hint in answer.text) == (404, True)
    assert ("type" in answer.json) is ("messages" in path)
    assert isinstance(answer.json["error"], str) is ("/api/" in path), (
        "in the format of the API that was meant"
    )


def test_a_wrong_method_is_told_the_right_ones(app: InProcess) -> None:
    answer = app.ask("GET", "/v1/messages")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize("header", ["Upgrade", "Sec-WebSocket-Key"])
def test_a_websocket_is_declined_with_the_protocol_there_is(app: InProcess, header: str) -> None:
    answer = app.ask("GET", "/v1/responses", **{header: "websocket"})
    assert (answer.status_code, answer.headers["Upgrade"], answer.headers["Allow"]) == (
        426,
        "HTTP/1.1",
        "OPTIONS, POST",
    )


def test_a_missing_token_is_asked_for(app: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answer = app.ask("GET", "/v1/models", token="wrong-token")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "auth_failure" in caplog.messages
    assert "wrong-token" not in str([vars(record) for record in caplog.records])


def test_ollamas_command_line_is_told_by_403(app: InProcess) -> None:
    answer = app.ask("GET", "/api/tags", token=None, User_Agent="ollama/0.24.0 (amd64 linux)")
    assert (answer.status_code, answer.json["error"]) == (403, MISSING_TOKEN_IN_ADDRESS)


def test_a_fault_of_our_own_is_a_500_that_says_nothing_of_it(app: InProcess) -> None:
    def break_down() -> NoReturn:
        raise RuntimeError("secret detail")

    app.app.view_functions["ops.livez"] = break_down
    answer = app.ask("GET", "/livez")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text


@pytest.mark.parametrize(
    ("error", "retry_after", "should_retry"),
    [
        (Overloaded(), str(BUSY_RETRY_S), None),
        (Overloaded(retry_after_s=7), "7", None),
        (RateLimited("requests_per_minute", "token:team", retry_after_s=60), "60", None),
        (QuotaExceeded("tokens_per_day", "token:team", retry_after_s=3600), "3600", "false"),
    ],
)
def test_a_refusal_has_the_headers_for_a_retry(
    app: InProcess, error: GatewayError, retry_after: str, should_retry: str | None
) -> None:
    def refuse() -> NoReturn:
        raise error

    app.app.view_functions["ops.livez"] = refuse
    headers = app.ask("GET", "/livez").headers
    assert headers["Retry-After"] == retry_after
    assert headers.get("x-should-retry") == should_retry
