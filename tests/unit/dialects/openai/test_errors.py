"""OpenAI's error shapes."""

from __future__ import annotations

import json

import pytest

from ollama_proxy import errors
from ollama_proxy.dialects.openai.errors import OpenAIErrors
from ollama_proxy.errors import GatewayError, PromptTooLong, UpstreamRefused
from tests.rig.tables import each_row

ID = "req-1"


@each_row(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
    ],
)
def test_type_follows_the_status(status: int, kind: str) -> None:
    error = errors.NotFound("x") if status == 404 else UpstreamRefused(status, "x")
    document = json.loads(OpenAIErrors().render_error(error, ID))
    assert document["error"]["type"] == kind
    assert document["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "error", [errors.ModelNotFound("model 'x' not found"), UpstreamRefused(404, "No x")]
)
def test_missing_model_is_the_requests_fault(error: errors.GatewayError) -> None:
    document = json.loads(OpenAIErrors().render_error(error, ID))
    assert (document["error"]["type"], document["error"]["code"]) == (
        "invalid_request_error",
        "model_not_found",
    )
    assert document["error"]["message"] in ("Model 'x' not found", "No x")


@each_row(
    ("error", "code"),
    [
        (errors.MissingToken(), "invalid_api_key"),
        (errors.AuthError(), "invalid_api_key"),
        (errors.ModelNotFound(), "model_not_found"),
        (UpstreamRefused(404, "model 'x' not found"), "model_not_found"),
        (PromptTooLong("the input length exceeds the context length"), "context_length_exceeded"),
        (UpstreamRefused(400, "no"), None),
        (errors.BadRequest("no", param="stop"), "invalid_request"),
        (errors.LimitError(), "rate_limited"),
    ],
)
def test_code_is_the_one_that_clients_match_on(error: GatewayError, code: str | None) -> None:
    assert json.loads(OpenAIErrors().render_error(error, ID))["error"]["code"] == code


def test_frame_names_whose_fault_it_is_without_a_status() -> None:
    fields = {"message": "boom", "param": None, "code": None}
    own = OpenAIErrors().render_error_frame(UpstreamRefused(500, "boom"))
    theirs = OpenAIErrors().render_error_frame(errors.BadRequest("boom"))
    assert json.loads(own[6:])["error"] == fields | {"type": "server_error"}
    assert json.loads(theirs[6:])["error"] == fields | {"type": "invalid_request_error"}


@pytest.mark.parametrize(
    ("path", "is_hinted"), [("/chat/completions", True), ("/models", True), ("/v1/nothing", False)]
)
def test_a_base_url_without_v1_is_pointed_out(path: str, is_hinted: bool) -> None:
    assert ("ends with /v1" in OpenAIErrors().hint_at_address(path)) is is_hinted
