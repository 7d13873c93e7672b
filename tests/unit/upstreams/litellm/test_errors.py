"""What LiteLLM raises, as errors of the gateway. Its classes are known by their names."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.upstreams.litellm.errors import decode_exception, strip_labels
from tests.rig.tables import each_row


def raised(name: str, text: str = "", **fields: Any) -> Exception:
    made: Exception = type(name, (Exception,), {})(text)
    for field, value in {"message": text, **fields}.items():
        setattr(made, field, value)
    return made


class Response:
    status_code = 429
    headers = (("Retry-After", "7"),)
    content = b'{"error":{"message":"slow down"}}'

    def __init__(self) -> None:
        self.headers = type("Headers", (), {"items": lambda _: [("Retry-After", "7")]})()  # type: ignore[assignment]


@each_row(
    ("error", "status", "slug"),
    [
        (raised("ConnectError"), 503, "upstream_unreachable"),
        (raised("ReadTimeout"), 504, "upstream_timeout"),
        (raised("Timeout"), 504, "upstream_timeout"),
        (raised("RemoteProtocolError"), 502, "upstream_cut"),
        (raised("AuthenticationError", status_code=401), 502, "upstream_error"),
        (
            raised("BadRequestError", "LLM Provider NOT provided", status_code=400),
            404,
            "model_not_found",
        ),
        (
            raised("BadRequestError", "litellm.BadRequestError: no such field", status_code=400),
            400,
            "invalid_request",
        ),
        (
            raised("ContextWindowExceededError", "9 tokens", status_code=400),
            400,
            "context_length_exceeded",
        ),
        (raised("ValueError", "secret prompt"), 502, "upstream_error"),
    ],
)
def test_error(error: Exception, status: int, slug: str) -> None:
    made = decode_exception(error, model="m")
    assert (made.status, made.slug) == (status, slug)
    assert "secret" not in str(made)


def test_what_the_provider_said_lies_beneath() -> None:
    outer = raised("RateLimitError", "litellm text")
    outer.__cause__ = raised("HTTPStatusError", response=Response())
    made = decode_exception(outer, model="m")
    assert (made.status, str(made), made.retry_after_s) == (429, "slow down", 7)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("litellm.BadRequestError: OpenAIException - no such field", "no such field"),
        ("no such field. To drop it, set x", "no such field."),
        ("bad Traceback (most recent call last): ...", "bad"),
        ("plain", "plain"),
    ],
)
def test_its_own_words_are_left_out(text: str, shown: str) -> None:
    assert strip_labels(text) == shown
