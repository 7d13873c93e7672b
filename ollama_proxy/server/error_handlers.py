"""Whatever goes wrong in a request becomes one of our errors, drawn in the shape
that the path promises."""

from __future__ import annotations

import logging

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from ollama_proxy.errors import (
    BUSY_RETRY_S,
    BadRequest,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    NoWebSocket,
    QuotaExceeded,
)
from ollama_proxy.gateway import current_exchange, log_internal_error, record_failure, whole

log = logging.getLogger(__name__)


def install_error_handlers(app: Flask) -> None:
    """Handlers by class on the application: unknown addresses belong to no blueprint."""

    def answer(error: GatewayError) -> Response:
        """The response for one of our errors."""
        exchange = current_exchange()
        record_failure(exchange, error)
        if error.status in (401, 403):
            fields = {
                "id": exchange.id,
                "client": exchange.client,
                "path": exchange.path,
                "error": error.slug,
            }
            log.warning("auth_failure", extra={"fields": fields | {"detail": error.detail}})
        errors = exchange.dialect.errors
        error, status = errors.for_client(error, request.environ)
        response = whole(
            errors.render_error(error, exchange.id), status=status, content_type=errors.content_type
        )
        wait_s = (
            BUSY_RETRY_S
            if error.retry_after_s is None and error.status in (503, 529)
            else error.retry_after_s
        )
        if wait_s is not None:
            response.headers["Retry-After"] = str(wait_s)
        if isinstance(error, QuotaExceeded):
            response.headers["x-should-retry"] = "false"  # official SDKs obey it
        if status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def answer_http(error: HTTPException) -> Response:
        """The response for what Flask and werkzeug raise."""
        response = answer(own_error(error))
        if isinstance(error, WrongMethod) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        if response.status_code == NoWebSocket.status:
            response.headers["Upgrade"] = "HTTP/1.1"  # required, see RFC 9110, section 15.5.22
        return response

    def answer_any(error: Exception) -> Response:
        """The response for a fault of our own."""
        return answer(log_internal_error(current_exchange(), error))

    app.register_error_handler(GatewayError, answer)
    app.register_error_handler(HTTPException, answer_http)
    app.register_error_handler(Exception, answer_any)


def own_error(error: HTTPException) -> GatewayError:
    """What Flask and werkzeug raise, as one of ours."""
    exchange = current_exchange()
    path = exchange.path[:200]
    if error.code == 404:
        is_doubled = path.startswith("/v1/v1/")
        hint = (
            " The base URL has one /v1 too many."
            if is_doubled
            else exchange.dialect.errors.hint_at_address(path)
        )
        return NotFound(f"The path {path} does not exist.{hint}")
    # Proxies remove the `Upgrade` of a WebSocket's handshake, but not its key.
    is_handshake = (
        request.headers.get("Upgrade", "").lower() == "websocket"
        or "Sec-WebSocket-Key" in request.headers
    )
    if error.code == 405 and is_handshake:
        return NoWebSocket()
    if error.code == 405:
        return MethodNotAllowed(f"The path {path} does not support {request.method}.")
    return BadRequest(detail=type(error).__name__)
