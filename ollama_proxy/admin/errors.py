"""The error format of the admin API: `{"error": {"message", "code", "param"}}`."""

from __future__ import annotations

import orjson
from marshmallow import Schema, fields

from ollama_proxy.errors import GatewayError
from ollama_proxy.gateway import ErrorRenderer
from ollama_proxy.hub import Json
from ollama_proxy.wire import sse_frame


class AdminErrors(ErrorRenderer):
    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """Returns the body of an error response."""
        return orjson.dumps(_describe(error))

    def render_error_frame(self, error: GatewayError) -> bytes:
        """Returns the last frame of a stream that failed."""
        return sse_frame(_describe(error))


def _describe(error: GatewayError) -> Json:
    document: dict[str, Json] = {"message": str(error), "code": error.slug}
    return {"error": document | ({"param": error.param} if error.param else {})}


class Detail(Schema):
    """What went wrong."""

    message = fields.String(required=True)
    code = fields.String(
        required=True, metadata={"description": "Stable; docs/errors.md lists them."}
    )
    param = fields.String(metadata={"description": "The field or parameter that is not valid."})


class ErrorSchema(Schema):
    """Every error of this API."""

    error = fields.Nested(Detail, required=True)
