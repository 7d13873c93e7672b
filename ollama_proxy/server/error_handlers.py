"""Whatever goes wrong in a request becomes one of our errors, drawn in the shape that the path promises."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from ollama_proxy.errors import (
    BUSY_RETRY_S,
    MISSING_TOKEN_IN_ADDRESS,
    BadRequest,
    GatewayError,
    MethodNotAllowed,
    MissingToken,
    NotFound,
)
from ollama_proxy.gateway import ErrorFace, current_exchange, fail, fault, whole

log = logging.getLogger(__name__)

#: How Ollama's command line, and its Go library, name themselves; those for Python and JavaScript have other names.
_OLLAMA_CLI = "ollama/"


def install_error_handlers(app: Flask, faces: Mapping[str, ErrorFace]) -> None:
    """Handlers by class on the application: unknown addresses belong to no blueprint."""

    def answer(error: GatewayError) -> Response:
        """The response for one of our errors."""
        exchange = current_exchange()
        fail(exchange, error)
        if error.status in (401, 403):
            fields = {"id": exchange.id, "client": exchange.client, "path": exchange.path, "error": error.slug}
            log.warning("auth_failure", extra={"fields": fields | {"detail": error.detail}})
        error, status = _for_client(error, exchange.dialect, request.environ.get("HTTP_USER_AGENT", ""))
        response = whole(faces[exchange.dialect].render_error(error, exchange.id), status=status)
        wait_s = BUSY_RETRY_S if error.retry_after_s is None and error.status in (503, 529) else error.retry_after_s
        if wait_s is not None:
            response.headers["Retry-After"] = str(wait_s)
        if status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def answer_http(error: HTTPException) -> Response:
        """The response for what Flask and werkzeug raise."""
        response = answer(own_error(error))
        if isinstance(error, WrongMethod) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    def answer_any(error: Exception) -> Response:
        """The response for a fault of our own."""
        return answer(fault(current_exchange(), error))

    app.register_error_handler(GatewayError, answer)
    app.register_error_handler(HTTPException, answer_http)
    app.register_error_handler(Exception, answer_any)


def _for_client(error: GatewayError, dialect: str, user_agent: str) -> tuple[GatewayError, int]:
    """The error and its status as this client gets them. Ollama's command line gets 403 in place of 401: it never
    prints the text of a 401, but asks the user to sign in to Ollama or to read the server's log. It can send no
    header, so it is told about the address."""
    if error.status != 401 or dialect != "native" or not user_agent.startswith(_OLLAMA_CLI):
        return error, error.status
    return (MissingToken(MISSING_TOKEN_IN_ADDRESS) if isinstance(error, MissingToken) else error), 403


def own_error(error: HTTPException) -> GatewayError:
    """What Flask and werkzeug raise, as one of ours."""
    path = current_exchange().path[:200]
    if error.code == 404:
        return NotFound(f"There is nothing at {path}.{_hint(path)}")
    if error.code == 405:
        return MethodNotAllowed(f"{path} does not take {request.method}.")
    return BadRequest(detail=type(error).__name__)


def _hint(path: str) -> str:
    """What is wrong with the base URL where clients often have it slightly wrong."""
    if path.startswith("/v1/v1/"):
        return " The base URL has one /v1 too many."
    is_openai = current_exchange().dialect == "openai" and not path.startswith("/v1")
    return " The base URL of OpenAI's clients ends with /v1." if is_openai else ""
