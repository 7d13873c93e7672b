"""One gateway for a whole test module: warm before the first test, and asked after the
last what it has kept."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from tests.rig import SeenRequest
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import ScriptedServer
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Headers, bearer
from tests.rig.leaks import LeakCheck, open_descriptors
from tests.rig.local import LocalGateway

AnyGateway = Gateway | LocalGateway

TOKEN = "face-token"
LOGS = ("access.log", "events.log")

_IDS = re.compile(rb'"id":"(chatcmpl-|cmpl-|msg_)[^"]+"')
_CREATED = re.compile(rb'"created":\d+')


class KeptConnection:
    """Many exchanges over one connection, so with one worker; most of a test's time
    is then the test's own."""

    def __init__(self, gateway: Gateway) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One exchange. A connection that was idle for too long is opened again."""
        sent = dict(headers or bearer(TOKEN))
        try:
            return self._ask(method, path, body, sent)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self._connection.close()
            return self._ask(method, path, body, sent)

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        self._connection.request(method, path, body or None, headers)
        response = self._connection.getresponse()
        return Answer(response.status, Headers(response.getheaders()), response.read(), True)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def shared_gateway(
    upstream: ScriptedServer | None = None, *, idle: int = 4, workers: int = 2, **config: Any
) -> Iterator[Gateway]:
    """A gateway in front of `upstream` (or of what `config` names); fails at its end when something
    has leaked. `idle` is how many pooled upstream connections may stay."""
    settings: dict[str, Any] = {"auth": {"generate_tokens": [TOKEN]}} | config
    if upstream is not None:
        settings["service"] = {"base_url": upstream.url}
    with Gateway(settings, workers=workers) as gateway:
        warm(gateway)
        check = LeakCheck(gateway, upstream, token=TOKEN, idle=idle)
        if upstream is not None:
            upstream.clear()
        yield gateway
        check.verify()


def warm(gateway: Gateway, token: str = TOKEN) -> None:
    """Lets every worker open once what it keeps for good: its log files, its watch on clients."""

    def is_warm() -> bool:
        with closing(KeptConnection(gateway)) as connection:
            connection.ask("GET", "/api/version", headers=bearer(token))
            connection.ask("GET", "/api/version", headers=bearer("wrong"))
        opened = ["\n".join(open_descriptors(pid).values()) for pid in gateway.worker_pids()]
        return len(opened) == gateway.workers and all(
            name in files for files in opened for name in LOGS
        )

    wait_until(is_warm, 20, "not every worker has opened its logs")


def without_tag(names: Iterable[str]) -> set[str]:
    """Names of models as people write them."""
    return {name.removesuffix(":latest") for name in names}


def forwarded(upstream: ScriptedServer) -> list[SeenRequest]:
    """What reached the upstream for the sake of a test: without the workers' own
    look whether it is there."""
    return [
        seen for seen in upstream.requests if (seen.method, seen.path) != ("GET", "/api/version")
    ]


@contextmanager
def local_gateway(
    upstream: ScriptedServer | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    over_sockets: bool = False,
    **config: Any,
) -> Iterator[LocalGateway]:
    """The same in the process of the test; see `LocalGateway`."""
    settings: dict[str, Any] = {"auth": {"generate_tokens": [TOKEN]}} | config
    if upstream is not None:
        settings["service"] = {"base_url": upstream.url}
    with LocalGateway(settings, environ=environ, over_sockets=over_sockets) as gateway:
        if upstream is not None:
            upstream.clear()
        yield gateway


def post(gateway: AnyGateway, path: str, body: Any, **headers: str) -> Answer:
    """One JSON request with the module's token."""
    return gateway.request("POST", path, body, bearer(TOKEN) | headers)


def get(gateway: AnyGateway, path: str, **headers: str) -> Answer:
    """One GET with the module's token."""
    return gateway.request("GET", path, None, bearer(TOKEN) | headers)


def normalised(body: bytes) -> bytes:
    """An answer without what differs from one run to the next."""
    return _CREATED.sub(b'"created":0', _IDS.sub(rb'"id":"\1ID"', body))


def frames(body: bytes) -> list[Any]:
    """The data of every server-sent event; `[DONE]` stays text, comments are left out."""
    texts = [
        event.removeprefix(b"data: ")
        for event in body.split(b"\n\n")
        if event.startswith(b"data: ")
    ]
    return ["[DONE]" if text == b"[DONE]" else json.loads(text) for text in texts]


def named_frames(body: bytes) -> list[Any]:
    """The data of every event of a stream in which each has its `event:` line with the type that
    its data has; comments are left out."""
    *events, end = re.sub(rb"(?m)^:[^\n]*\n\n", b"", body).split(b"\n\n")
    assert end == b""
    documents = []
    for event in events:
        name, data = event.split(b"\n")
        documents.append(json.loads(data.removeprefix(b"data: ")))
        assert name.decode() == f"event: {documents[-1]['type']}"
    return documents
