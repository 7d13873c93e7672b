"""Ollama's error shapes: `{"error": "text"}`, as a body and as the last line of a stream. Always a string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ollama_proxy.errors import GatewayError
from ollama_proxy.wire import ndjson_frame


class NativeErrors:
    name = "native"

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """See ErrorFace."""
        return orjson.dumps({"error": str(error)})

    def head_fields(self, request_id: str, environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """See ErrorFace."""
        return ()

    def render_error_frame(self, error: GatewayError) -> bytes:
        """See ErrorFace. No `done` line follows it."""
        return ndjson_frame({"error": str(error)})
