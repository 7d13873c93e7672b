"""As much of Ollama as somebody sees who only looks whether it is there; on any
address of this machine."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ollama_proxy.cli.exposure import own_addresses

PAGES: dict[str, Any] = {
    "/api/version": {"version": "0.12.0"},
    "/api/tags": {"models": [{"name": "it's:8b"}, {"name": "other"}]},
}


class _Server(ThreadingHTTPServer):
    #: JSON by path; bytes as they are, and what is missing is a 404. A number in front, or
    #: alone, is the status.
    pages: dict[str, Any]

    def __init__(self, address: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Answers)


class _Answers(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path, 404)
        status, page = (
            page
            if isinstance(page, tuple)
            else (page, None)
            if isinstance(page, int)
            else (200, page)
        )
        self.send_response(status)
        body = page if isinstance(page, bytes) else json.dumps(page).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a test says what it saw."""


@contextmanager
def plain_ollama(
    address: str = "127.0.0.1",
    *,
    port: int = 0,
    ssl_context: ssl.SSLContext | None = None,
    **pages: Any,
) -> Iterator[int]:
    """A server on this address alone; gives its port. `pages`: other answers, `version=401` for
    `/api/version`; by path, if it begins with a slash."""
    with _Server(address, port) as server:
        server.pages = PAGES | {
            name if name.startswith("/") else f"/api/{name}": page for name, page in pages.items()
        }
        if ssl_context:
            server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def nobody(address: str = "127.0.0.1") -> Iterator[int]:
    """A port where nothing answers: bound, but not listening."""
    with socket.socket() as reserved:
        reserved.bind((address, 0))
        yield reserved.getsockname()[1]


def network_address() -> str:
    """An address by which other machines reach this one. Where there is none the test is skipped
    with the reason; with CI=true it fails."""
    if found := own_addresses():
        return str(found[0])
    reason = "this machine has no address but loopback"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)
