"""OpenAI's error shapes, and Ollama's beside them."""

from __future__ import annotations

import json

import pytest

from ollama_proxy import errors
from ollama_proxy.dialects.native.errors import NativeErrors
from ollama_proxy.dialects.openai.errors import OpenAIErrors
from ollama_proxy.dialects.registry import DIALECTS
from ollama_proxy.errors import GatewayError, PromptTooLong, UpstreamRefused
from ollama_proxy.gateway.rendering import ErrorFace

#: Of the request; Anthropic's errors have it in their body.
ID = "req-1"


def every_error() -> list[type[GatewayError]]:
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, GatewayError)]
    return [one for one in found if not issubclass(one, UpstreamRefused)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("face", [dialect.errors for dialect in DIALECTS], ids=lambda face: type(face).__name__)
def test_every_error_has_a_body_and_a_frame_in_every_dialect(face: ErrorFace, kind: type[GatewayError]) -> None:
    error = kind("Something is wrong.", detail="secret detail")
    assert b"Something is wrong." in face.render_error(error, ID)
    assert face.render_error_frame(error).endswith(b"\n")
    for text in (face.render_error(error, ID), face.render_error_frame(error)):
        assert b"secret detail" not in text


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("error", [errors.ModelNotFound("model 'x' not found"), UpstreamRefused(404, "No x")])
def test_missing_model_is_the_requests_fault(error: errors.GatewayError) -> None:
    document = json.loads(OpenAIErrors().render_error(error, ID))
    assert (document["error"]["type"], document["error"]["code"]) == ("invalid_request_error", "model_not_found")
    assert document["error"]["message"] in ("Model 'x' not found", "No x")


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("text", ['quo"te', "世界", "line\nbreak", ""])
def test_native_error_is_always_a_text_on_one_line(text: str) -> None:
    error = GatewayError(text)
    assert json.loads(NativeErrors().render_error(error, ID)) == {"error": text or GatewayError.text}
    frame = NativeErrors().render_error_frame(error)
    assert frame.count(b"\n") == 1
    assert isinstance(json.loads(frame)["error"], str)
