"""What an error looks like to a client of either dialect."""

from __future__ import annotations

from tests.rig.http_client import Answer

NATIVE, OPENAI = "native", "openai"

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


def assert_error(answer: Answer, dialect: str, status: int) -> str:
    """The answer is exactly this dialect's error with this status; returns its text."""
    assert answer.status == status, f"{answer.status}, not {status}: {answer.text[:500]}"
    assert answer.complete
    assert (answer.headers.get("content-type") or "").startswith("application/json")
    assert answer.headers.get("cache-control") == "no-store"
    assert "Traceback" not in answer.text and "<html" not in answer.text.lower()
    document = answer.json()
    assert document.keys() == {"error"}
    if dialect == NATIVE:
        text = document["error"]
    else:
        assert document["error"].keys() == {"message", "type", "param", "code"}
        assert document["error"]["type"] == OPENAI_TYPES.get(status, "invalid_request_error")
        text = document["error"]["message"]
    assert isinstance(text, str) and text
    return text
