"""The gateway's WSGI application in a worker that counts its calls, for `benchmarks.calls`.

From the first GET `/_calls` of a connection on, every call of a Python or C function in its
greenlet is counted, those of the HTTP server too. The answer has the number so far. For benchmarks
only: it needs no token.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING

from wsgi import app as gateway

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATH = "/_calls"
CALLS = frozenset({"call", "c_call"})

_calls = 0


def count(frame: FrameType, event: str, argument: object) -> None:
    global _calls
    if event in CALLS:
        _calls += 1


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] != PATH:
        return gateway(environ, start_response)
    sys.setprofile(count)
    body = str(_calls).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
