"""The gateway in the process of the test: the whole application with the product's own reading of
requests and framing of responses, between bytes in memory.

A request runs in the greenlet of the test, as far as the test reads its answer. Upstreams are the
scripted servers of this process, reached in memory (`tests.rig.memory`); an upstream that is
anything else has to be reached over its socket: ``LocalGateway(config, over_sockets=True)``.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from unittest import mock

import gevent
import gevent.socket
import httpx2 as httpx
import yaml

from ollama_proxy.records import SPOOL_DIRECTORY, Spool
from ollama_proxy.server.app import create_app
from ollama_proxy.server.connection import Connection
from ollama_proxy.server.incoming import HeadLimits, IncomingRequest
from ollama_proxy.server.live_settings import LiveSettings
from ollama_proxy.server.process_state import ProcessState
from ollama_proxy.server.response import Response
from ollama_proxy.server.startup import SESSION_DIRECTORY
from ollama_proxy.settings import Settings
from ollama_proxy.settings.schema import settings_from
from ollama_proxy.telemetry import access_log
from ollama_proxy.upstreams import HttpTransport
from tests.rig import http_client
from tests.rig.deadline import wait_until
from tests.rig.gateway import WITHOUT_RECORDS
from tests.rig.local_coordinator import LocalCoordinator
from tests.rig.memory import MemoryTransport

_LIMITS = HeadLimits(8190, 16384, 200)
_ENVIRON = {
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "80",
    "REMOTE_PORT": "50000",
    "SCRIPT_NAME": "",
}


class LocalGateway:
    """A gateway without a process, a socket or a server: ``with LocalGateway(config) as gateway``.

    ``config`` is YAML text or a mapping, ``token`` its first token, ``environ`` is added to the
    environment of the process. ``options`` are those of `create_app`. ``coordinated``: with slots,
    queue, limits, and what is managed in the records. ``records``: also with a database, which is
    that of ``config``.
    """

    url = "http://gateway.test"

    def __init__(
        self,
        config: str | Mapping[str, Any],
        *,
        environ: Mapping[str, str] | None = None,
        over_sockets: bool = False,
        coordinated: bool = False,
        records: bool = False,
        client: str = "127.0.0.1",
        **options: Any,
    ) -> None:
        self.client = client
        self.token = first_token(config)
        self._has_coordinator, self._has_records = coordinated or records, records
        self._environ = ({} if records else WITHOUT_RECORDS) | dict(environ or {})
        # Keys of providers are read from the environment of the process.
        self._environment = mock.patch.dict(os.environ, dict(environ or {}))
        self._config = config
        self._options: dict[str, Any] = {
            "open_transport": HttpTransport if over_sockets else MemoryTransport
        } | options

    def __enter__(self) -> Self:
        self._environment.start()
        self._directory = Path(tempfile.mkdtemp(prefix="local-gateway-"))
        self.state_directory = self._directory / "state"
        self.logs_directory = self._directory / "logs"
        self.state_directory.mkdir()
        self.logs_directory.mkdir()
        self._environ["STATE_DIRECTORY"] = str(self.state_directory)
        settings = load(self._config, self._environ)
        self.process = ProcessState()
        # Standard output is that of the tests.
        with mock.patch.object(access_log, "STDOUT", lambda lines: None):
            self.app = create_app(
                settings,
                log_directory=self.logs_directory,
                **self._parts(settings) | self._options,
                process=self.process,
            )
            self._events = access_log.JsonLines(
                self.logs_directory, self.process.configured_tokens, self.process.log_writers
            )
        access_log.log.addHandler(self._events)
        access_log.log.setLevel(settings.logging.level)
        self.gateway = self.app.extensions["ollama_proxy"]["gateway"]
        self._follow_records(settings)
        # What a worker does at its start, and from then on in the background.
        self.check_health()
        self.refresh_models()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if exc[0] is None:
                self.check_idle()
        finally:
            access_log.log.removeHandler(self._events)
            if self.coordinator is not None:
                self.coordinator.close()
            self.gateway.fleet.close()
            self.process.log_writers.files.flush()
            shutil.rmtree(self._directory, ignore_errors=True)  # a write may be under way
            self._environment.stop()

    def _parts(self, settings: Settings) -> dict[str, Any]:
        """Those of `create_app` that keep something in the state directory."""
        directory = self.state_directory
        parts: dict[str, Any] = {"session_directory": directory / SESSION_DIRECTORY}
        self.coordinator = None
        if self._has_coordinator:
            self.coordinator = LocalCoordinator(directory, settings.records)
            parts["coordinator"] = self.coordinator
        if self._has_records:
            parts["spool"] = Spool(directory / SPOOL_DIRECTORY, self.process.configured_tokens)
        return parts

    def _follow_records(self, settings: Settings) -> None:
        """Apply what is managed in the records, as a worker does."""
        self._live = LiveSettings(settings, self._environ)
        self._live.on_change = self.gateway.apply
        if self.coordinator is not None:
            self.coordinator.records.on_managed = self._live.receive
            self.coordinator.serve()

    def refresh_models(self) -> None:
        """Ask every upstream now which models it has and has loaded: otherwise a gateway may know
        that for two seconds."""
        self.gateway.fleet.refresh(0, wait_s=10)

    def check_idle(self) -> None:
        """Wait until no request and no connection to an upstream is open. Raises AssertionError
        with what is left."""

        def left() -> dict[str, int]:
            active = self.gateway.fleet.counts()["active"]
            return {"requests": self.gateway.in_flight, "connections to upstreams": active}

        wait_until(lambda: not any(left().values()), 2, lambda: f"still open: {left()}")

    def check_health(self) -> None:
        """Check every upstream, as a worker does every few seconds."""
        self.app.extensions["ollama_proxy"]["health"].check()

    def log_lines(self, name: str, *, at_least: int = 0) -> list[dict[str, Any]]:
        """The JSON lines of ``<name>.log``; waits until there are ``at_least`` so many."""
        path = self.logs_directory / f"{name}.log"

        def read() -> list[str]:
            self.process.log_writers.files.flush()
            return (path.read_text(encoding="utf-8") if path.exists() else "").split("\n")[:-1]

        if at_least:
            wait_until(lambda: len(read()) >= at_least, 5, lambda: f"{path.name} has only {read()}")
        return [json.loads(line) for line in read()]

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of the event log that report this event."""
        return [line for line in self.log_lines("events") if line["event"] == event]

    def apply(self, config: str | Mapping[str, Any]) -> None:
        """Apply another configuration, as an edit of the file does."""
        self._live.replace_file(load(config, self._environ))

    def ask(
        self,
        path: str,
        body: http_client.Body = None,
        *,
        method: str = "",
        token: str | None = "",
        **headers: str,
    ) -> http_client.Answer:
        """One request and its whole answer: POST with a body, else GET, unless `method` says
        otherwise. `token`: the first one of the configuration, unless another is named; None:
        without one."""
        sent = {} if token is None else http_client.bearer(token or self.token)
        method = method or ("GET" if body is None else "POST")
        return self.request(method, path, body, sent | headers)

    def request(
        self,
        method: str = "GET",
        path: str = "/",
        body: http_client.Body = None,
        headers: http_client.HeaderItems = (),
    ) -> http_client.Answer:
        """One request with these headers and no others, and its whole answer."""
        with self.open_stream(method, path, body, headers) as stream:
            data = stream.read_all()
            return http_client.Answer(stream.status, stream.headers, data, stream.complete)

    def open(
        self,
        path: str,
        body: http_client.Body = None,
        *,
        method: str = "",
        token: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> http_client.Stream:
        """As `ask`, for an answer that is read piece by piece."""
        method = method or ("GET" if body is None else "POST")
        return self.open_stream(method, path, body, self._identified(token, headers))

    def open_stream(
        self,
        method: str = "GET",
        path: str = "/",
        body: http_client.Body = None,
        headers: http_client.HeaderItems = (),
    ) -> http_client.Stream:
        """As `request`, for an answer that is read piece by piece."""
        data = http_client.encode_request("gateway.test", method, path, body, headers)
        connection = MemoryConnection(self.app.wsgi_app, data, self.client)
        return http_client.Stream(connection, bodyless=method == "HEAD")  # type: ignore[arg-type]

    def start(
        self,
        path: str,
        body: http_client.Body = None,
        *,
        method: str = "",
        token: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> http_client.Stream:
        """As `open`, for a request that goes on by itself while the test does something else. The
        end of the stream is that of its client."""
        method = method or ("GET" if body is None else "POST")
        return self.start_stream(method, path, body, self._identified(token, headers))

    def start_stream(
        self,
        method: str = "GET",
        path: str = "/",
        body: http_client.Body = None,
        headers: http_client.HeaderItems = (),
    ) -> http_client.Stream:
        """As `start`, with these headers and no others."""
        client, server = gevent.socket.socketpair()
        gevent.spawn(self._serve, server)
        client.sendall(http_client.encode_request("gateway.test", method, path, body, headers))
        return http_client.Stream(client, bodyless=method == "HEAD")

    def _identified(self, token: str, headers: Mapping[str, str] | None) -> dict[str, str]:
        return http_client.bearer(token or self.token) | dict(headers or {})

    def _serve(self, sock: Any) -> None:
        """Answer a request as the worker does."""
        connection = Connection(sock, {**_ENVIRON, "REMOTE_ADDR": self.client})
        try:
            if (request := connection.read_request(_LIMITS)) is not None:
                connection.respond(request, self.app.wsgi_app, is_last=True)
        except OSError:
            pass  # the client has gone
        except Exception:  # noqa: BLE001 - as the worker: a body that fails is not ended
            logging.getLogger(__name__).exception("the application failed in its answer")
        finally:
            connection.close()


class LocalTransport(httpx.BaseTransport):
    """Takes the requests of an SDK to a gateway of this process: ``http_client=`` of the official
    clients is ``httpx.Client(transport=LocalTransport(gateway))``."""

    def __init__(self, gateway: LocalGateway) -> None:
        self._gateway = gateway

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        names = ("content-length", "connection", "host")
        headers = [each for each in request.headers.items() if each[0] not in names]
        path = request.url.raw_path.decode("ascii")
        stream = self._gateway.open_stream(request.method, path, request.read() or None, headers)
        status, answered = stream.read_head()
        return httpx.Response(status, headers=answered, stream=_Body(stream))


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: http_client.Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from iter(self._stream.read_some, b"")
        if not self._stream.complete:
            raise httpx.RemoteProtocolError("the body is incomplete")

    def close(self) -> None:
        self._stream.close()


class MemoryConnection:
    """The client's end of a connection: what is received from it is what the application has
    written, which runs no further than that."""

    def __init__(self, app: Any, data: bytes, client: str) -> None:
        self._request = IncomingRequest({**_ENVIRON, "REMOTE_ADDR": client}, _LIMITS, self)
        self._app = app
        self._unread = self._request.feed(data) or b""
        self._sent = bytearray()
        self._steps = self._respond()

    def recv(self, size: int) -> bytes:
        """What the application writes next; b"" at the end."""
        while not self._sent and next(self._steps, None) is not None:
            pass
        data = bytes(self._sent[:size])
        del self._sent[:size]
        return data

    def settimeout(self, seconds: float) -> None:
        """Nothing to do: the application does not keep its caller waiting by itself."""

    def fileno(self) -> int:
        """It has no descriptor."""
        return -1

    def close(self) -> None:
        """Leave: the application goes no further."""
        self._steps.close()

    # What a request reads its body from.

    def receive(self) -> bytes:
        """The bytes after the head; b"" at the end."""
        data, self._unread = self._unread, b""
        return data

    def unread(self, data: bytes) -> None:
        """Put bytes back."""
        self._unread = data + self._unread

    def invite_body(self) -> None:
        """Nothing to do: the body is there."""

    def _respond(self) -> Iterator[bool]:
        """As `Connection.respond`, with a stop after each piece."""
        response = Response(self._request, self._sent.extend, is_last=True)
        pieces = self._app(self._request.environ, response.start_response)
        try:
            for piece in pieces:
                response.write(piece)
                yield True
            response.finish()
            yield True
        except Exception:  # noqa: BLE001 - as the worker: a body that fails is not ended
            logging.getLogger(__name__).exception("the application failed in its answer")
        finally:
            if hasattr(pieces, "close"):
                pieces.close()


def load(config: str | Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings of a configuration."""
    text = config if isinstance(config, str) else yaml.safe_dump(json.loads(json.dumps(config)))
    return settings_from(text.encode(), Path("config.yaml"), environ)


def first_token(config: str | Mapping[str, Any]) -> str:
    """The first token of a configuration; "" if it is text, or has none."""
    tokens = [] if isinstance(config, str) else config.get("auth", {}).get("generate_tokens") or []
    first = tokens[0] if tokens else ""
    return str(first.get("token") or "") if isinstance(first, Mapping) else str(first)
