"""Errors of pages, as pages; and the headers of all pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import has_request_context, render_template
from markupsafe import escape

from ollama_proxy.admin.pages.language import translate
from ollama_proxy.errors import GatewayError
from ollama_proxy.gateway import ErrorRenderer
from ollama_proxy.wire import sse_frame

#: Nothing inline, nothing of another site, and in no frame. Images of prompts
#: are shown from memory.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)

_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Vary", "Accept-Encoding, Accept-Language, Cookie"),
)


class PageErrors(ErrorRenderer):
    """See ErrorRenderer."""

    content_type = "text/html; charset=utf-8"

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """Returns a page that says what is wrong."""
        if not has_request_context():  # what the client sent is no HTTP
            return (
                f"<!doctype html><title>{error.status}</title><p>{escape(error.text)}</p>".encode()
            )
        return render_template(
            "error.html", error=error.text, status=error.status, request_id=request_id
        ).encode()

    def render_error_frame(self, error: GatewayError) -> bytes:
        """Returns the last event of a live part."""
        return sse_frame({"error": translate(error.text)})

    def head_fields(self, request_id: str, environ: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Returns the headers of all pages."""
        return _HEADERS
