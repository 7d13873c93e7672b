"""GET /health/probe: shows a caller with a token what its requests look like when they arrive,
and sends an answer in pieces, so that `ollama-proxy doctor` can tell what stands between
clients and the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import gevent
import orjson
from flask import Response, request

from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway import Exchange, Gateway, current_exchange
from ollama_proxy.hub import Json
from ollama_proxy.server.request import is_trusted, plain_address
from ollama_proxy.settings import Settings

#: Most pieces of an answer, and the longest pause between two, in milliseconds: longer than the
#: time limits that proxies have by default.
MAX_PIECES, MAX_PAUSE_MS = 50, 120_000


def describe_request(
    environ: Mapping[str, Any], exchange: Exchange, settings: Settings
) -> dict[str, Json]:
    """Returns how this request arrived, and the limits that a proxy in front of the
    gateway must not undercut."""
    return {
        "protocol": environ["SERVER_PROTOCOL"],
        #: Who has connected, and who the client is taken for.
        "peer": environ.get("REMOTE_ADDR") or "",
        "port": int(environ.get("REMOTE_PORT") or 0),
        "client": exchange.client,
        "trusts_peer": is_trusted(
            plain_address(environ.get("REMOTE_ADDR") or ""), settings.server.trusted_proxies
        ),
        "is_forwarded": "HTTP_X_FORWARDED_FOR" in environ,
        "scheme": environ["wsgi.url_scheme"],
        "max_body": settings.server.max_body,
        "heartbeat_s": settings.stream.heartbeat_s,
        "time_s": time.time(),
    }


def answer_probe(gateway: Gateway) -> Response:
    """Returns a stream of lines: how this request has arrived, and then a line after each
    pause. The request's `pieces` and `pause_ms` say how many in all, and how long a pause
    is. Raises BadRequest."""
    pieces, pause_ms = (
        _read_number("pieces", 1, MAX_PIECES),
        _read_number("pause_ms", 0, MAX_PAUSE_MS),
    )
    description = describe_request(request.environ, current_exchange(), gateway.settings)

    def generate() -> Iterator[bytes]:
        """Yields a line after the other."""
        yield orjson.dumps(description) + b"\n"
        for number in range(2, pieces + 1):
            gevent.sleep(pause_ms / 1000)
            yield b'{"piece":%d}\n' % number

    # As the streams of answers, which proxies must not collect.
    return Response(
        generate(), content_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"}
    )


def _read_number(name: str, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and default <= int(text) <= most):
        raise BadRequest(f"{name} must be a whole number from {default} to {most}", param=name)
    return int(text)
