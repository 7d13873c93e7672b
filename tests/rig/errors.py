"""What an error looks like to a client of each dialect."""

from __future__ import annotations

from typing import Any

from ollama_proxy import errors
from ollama_proxy.errors import GatewayError
from tests.rig.http_client import Answer

NATIVE, OPENAI, ANTHROPIC, ADMIN = "native", "openai", "anthropic", "admin"

#: Errors of OpenAI's that do not have the type of their status. A missing model is the request's
#: fault, a missing address is not.
OPENAI_CODES = {
    "model_not_found": "invalid_request_error",
    "rate_limit_exceeded": "requests",
    "insufficient_quota": "insufficient_quota",
}

OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
}
ANTHROPIC_TYPES = OPENAI_TYPES | {
    408: "timeout_error",
    413: "request_too_large",
    503: "overloaded_error",
}


def assert_error(answer: Answer, dialect: str, status: int) -> str:
    """The answer is exactly this dialect's error with this status; returns its text."""
    assert answer.status == status, f"{answer.status}, not {status}: {answer.text[:500]}"
    assert answer.complete
    assert (answer.headers.get("content-type") or "").startswith("application/json")
    assert answer.headers.get("cache-control") == "no-store"
    assert "Traceback" not in answer.text and "<html" not in answer.text.lower()
    text = _TEXTS[dialect](answer, answer.json(), status)
    assert isinstance(text, str) and text
    return text


def dialect_of(path: str) -> str:
    """Whose errors a path promises, for paths that exist."""
    if path.startswith(("/v1/messages", "/anthropic")):
        return ANTHROPIC
    if path.startswith("/admin/api/"):
        return ADMIN
    return OPENAI if path.startswith("/v1/") else NATIVE


def _native(_: Answer, document: dict[str, Any], status: int) -> Any:
    assert document.keys() == {"error"}
    return document["error"]


def _openai(_: Answer, document: dict[str, Any], status: int) -> Any:
    assert document.keys() == {"error"}
    assert document["error"].keys() == {"message", "type", "param", "code"}
    kind = OPENAI_CODES.get(document["error"]["code"]) or OPENAI_TYPES.get(
        status, "invalid_request_error"
    )
    assert document["error"]["type"] == kind
    return document["error"]["message"]


def _anthropic(answer: Answer, document: dict[str, Any], status: int) -> Any:
    assert document.keys() == {"type", "error", "request_id"}
    # nginx gives its own answers an id, but no header with it.
    assert document["type"] == "error" and document["request_id"]
    assert document["request_id"] == answer.headers.get("x-request-id", document["request_id"])
    assert document["error"].keys() == {"type", "message"}
    assert document["error"]["type"] == ANTHROPIC_TYPES.get(status, "invalid_request_error")
    return document["error"]["message"]


def _admin(_: Answer, document: dict[str, Any], status: int) -> Any:
    assert document.keys() == {"error"}
    assert {"message", "code"} <= document["error"].keys() <= {"message", "code", "param"}
    return document["error"]["message"]


_TEXTS = {NATIVE: _native, OPENAI: _openai, ANTHROPIC: _anthropic, ADMIN: _admin}


def gateway_errors() -> list[type[GatewayError]]:
    """Every kind of error that the gateway itself raises."""
    found = vars(errors).values()
    return [each for each in found if isinstance(each, type) and issubclass(each, GatewayError)]
