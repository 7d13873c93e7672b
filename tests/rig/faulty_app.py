"""The gateway with faults that no shipped code has: for a start with
`app="tests.rig.faulty_app:app"`.

A POST to `/api/faulty/<where>`, `/v1/faulty/<where>` or `/anthropic/faulty/<where>` by a token with
the scope `manage` raises an exception that quotes the request's body: in the `view`, in the middle
of a `stream`, or outside of Flask (`server`), where only gunicorn is left to notice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Response, request

from wsgi import app as gateway


class Fault(Exception):
    """Carries what it must not tell."""


def _fail(secret: str) -> None:
    local = f"a local variable with {secret}"
    try:
        {}[secret]
    except KeyError as error:
        raise Fault(f"{local} {request.headers}") from error


def _broken_stream(secret: str) -> Iterator[bytes]:
    yield b"the beginning\n"
    raise Fault(secret)


def _faulty(where: str) -> Response:
    secret = request.get_data(as_text=True)
    if where == "stream":
        return Response(_broken_stream(secret), content_type="application/x-ndjson")
    _fail(secret)
    return Response()


for _number, _start in enumerate(("/api", "/v1", "/anthropic")):
    gateway.add_url_rule(f"{_start}/faulty/<where>", f"faulty{_number}", _faulty, methods=["POST"])


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application that gunicorn runs."""
    if environ["PATH_INFO"].endswith("/faulty/server"):
        raise Fault(environ["wsgi.input"].read().decode() + environ.get("HTTP_AUTHORIZATION", ""))
    return gateway(environ, start_response)
