"""The error format of the admin API."""

from __future__ import annotations

import json

import pytest

from ollama_proxy.admin.errors import AdminErrors, ErrorSchema
from ollama_proxy.errors import BadRequest, Forbidden, GatewayError

ERRORS = AdminErrors()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadRequest("limit: is too large", param="limit", detail="secret"), {"param": "limit"}),
        (Forbidden("no", detail="secret"), {}),
    ],
)
def test_errors_have_text_code_and_the_field_if_there_is_one(
    error: GatewayError, expected: dict[str, str]
) -> None:
    document = {"error": {"message": str(error), "code": error.slug, **expected}}
    assert json.loads(ERRORS.render_error(error, "id")) == ErrorSchema().load(document) == document
    frame = ERRORS.render_error_frame(error)
    assert frame.endswith(b"\n\n") and json.loads(frame.removeprefix(b"data: ")) == document
