"""The gateway as an application in the process of the test: routes, errors and
headers, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination import CoordinatorClient
from ollama_proxy.server.app import create_app
from ollama_proxy.settings.schema import settings_from

TOKEN = "unit-token"


class InProcess:
    """An application and a client of it that has a token."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()

    def ask(
        self, method: str, path: str, body: Any = None, token: str | None = TOKEN, **headers: str
    ) -> TestResponse:
        """One request and the whole answer; `X_Request_Id` in `headers` is
        the header of that name."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        response = self.client.open(path, method=method, json=body, headers=given)
        response.get_data()
        response.close()
        return response


@contextmanager
def in_process(
    *,
    coordinator: CoordinatorClient | None = None,
    metrics_directory: Path | None = None,
    session_directory: Path | None = None,
    clock: Clock = SYSTEM_CLOCK,
    **config: Any,
) -> Iterator[InProcess]:
    """The application with the demo model, or with what `config` says instead.
    `session_directory`: there are pages."""
    given: dict[str, Any] = {"auth": {"generate_tokens": [TOKEN]}, **config}
    if not given.keys() & {"service", "upstreams"}:
        given["service"] = {"base_url": "demo:"}
    settings = settings_from(json.dumps(given).encode(), Path("config.yaml"), {})
    app = create_app(
        settings,
        coordinator=coordinator,
        metrics_directory=metrics_directory,
        session_directory=session_directory,
        clock=clock,
    )
    fleet = app.extensions["ollama_proxy"]["gateway"].fleet
    if "upstreams" in given:
        # A request waits less than a second for a list that is not there yet.
        fleet.refresh(60, wait_s=10)
    try:
        yield InProcess(app)
    finally:
        fleet.close()
