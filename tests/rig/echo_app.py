"""An application that says how the server understood its request: a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

#: Of the environment of each request, with its headers.
KEYS = (
    "REQUEST_METHOD",
    "RAW_URI",
    "PATH_INFO",
    "QUERY_STRING",
    "SCRIPT_NAME",
    "SERVER_PROTOCOL",
    "wsgi.url_scheme",
)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application that the server runs."""
    said: dict[str, object] = {
        key: value
        for key, value in environ.items()
        if key in KEYS or key.startswith(("HTTP_", "CONTENT_"))
    }
    try:
        said["body"] = environ["wsgi.input"].read().decode("latin-1")
    except Exception:  # whatever the server raises for a body that is not valid
        said = {"invalid body": True}
    document = json.dumps(said, sort_keys=True).encode() + b"\n"
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(document)))]
    )
    return [document]
