"""The gateway with one route more, `/test/block/<seconds>`, which holds its whole
worker as a slow C call does.

Start it with ``Gateway(config, app="tests.rig.blocking_app:app")``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gevent import monkey

from ollama_proxy.server.startup import serve

ROUTE = "/test/block/"

_sleep = monkey.get_original("time", "sleep")


class Blocking:
    """A WSGI application in front of another one."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        if not path.startswith(ROUTE):
            answer: Iterable[bytes] = self._application(environ, start_response)
            return answer
        _sleep(float(path.removeprefix(ROUTE)))
        start_response("204 No Content", [])
        return []


app = serve()
app.wsgi_app = Blocking(app.wsgi_app)  # type: ignore[method-assign]
