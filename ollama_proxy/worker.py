"""gunicorn's gevent worker, with errors of HTTP itself said in JSON and without quoting the request.

gunicorn's own pages are HTML, and its log lines quote addresses, which may hold a token.
"""

from __future__ import annotations

import contextlib
import sys
from http.client import responses
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http import errors as http
from gunicorn.util import write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from ollama_proxy.arrival import dialect_of
from ollama_proxy.dialects.registry import FACES
from ollama_proxy.errors import BadRequest, GatewayError, InternalError
from ollama_proxy.telemetry import log

#: Most specific first; what is not here is no fault of the client: 500.
STATUSES: tuple[tuple[type[Exception], int, str], ...] = (
    (http.LimitRequestLine, 414, "The address of the request is too long."),
    (http.LimitRequestHeaders, 431, "The headers of the request are too large."),
    (http.UnsupportedTransferCoding, 501, "The transfer coding of the request is not supported."),
    (http.ExpectationFailed, 417, "The expectation of the request can't be met."),
    (http.ConfigurationProblem, 400, "The request can't be read."),
    (http.ParseException, 400, "The request is not valid HTTP."),
)


class ServerLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log, without the texts of exceptions: those may quote a prompt or a token."""

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Says where it happened, in the gateway's own log."""
        log.error("internal_error", exc_info=sys.exc_info()[1], extra={"fields": {"server": msg[:80]}})


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves the gateway; see the module."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers a request that never reached the application, or whose application failed without an answer."""
        error = public_error(exc)
        fields = {"client": addr[0] if addr else "", "status": error.status, "error": type(exc).__name__}
        if error.status == 500:
            log.error("internal_error", exc_info=exc, extra={"fields": fields})
        else:
            log.warning("bad_http", extra={"fields": fields})
        with contextlib.suppress(OSError):
            write_nonblock(client, answer(error, getattr(req, "path", None) or "/"))


def public_error(exc: BaseException) -> GatewayError:
    """What the client may be told."""
    ours = isinstance(exc, http.InvalidResponseHeader | http.InvalidResponseHeaderName)
    for kind, status, text in STATUSES:
        if isinstance(exc, kind) and not ours:
            error = BadRequest(text)
            error.status = status
            return error
    return InternalError()


def answer(error: GatewayError, path: str) -> bytes:
    """The whole HTTP answer, in the error shape that the path promises."""
    body = FACES[dialect_of({"PATH_INFO": path})].render_error(error, "")
    head = (
        f"HTTP/1.1 {error.status} {responses[error.status]}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
