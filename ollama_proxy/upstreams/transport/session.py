"""The requests session of one upstream, with an adapter of our own below it.

Nothing else imports requests. The session is neutral: no environment, no cookies, no redirects. The adapter keeps a
pool of gevent connections, last used first, and turns every foreign exception into one of ours.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterable, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import urlsplit

import gevent
import requests
from gevent import socket as gsocket
from gevent import ssl as gssl
from requests.adapters import BaseAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from ollama_proxy.errors import UpstreamConnect, UpstreamCut, UpstreamError, UpstreamTimeout
from ollama_proxy.upstreams.base import Headers, UpstreamRequest
from ollama_proxy.upstreams.bounded_cache import BoundedCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.transport.connection import Connection
from ollama_proxy.upstreams.transport.resolver import Host
from ollama_proxy.upstreams.transport.wait_timer import WaitTimer

MAX_IDLE_CONNECTIONS = 256

#: A connection that was idle this long is not used again, in seconds.
MAX_IDLE_S = 60.0

#: Requests that are kept prepared: paths are constants, but for the pages of a provider's list. Bytes of their paths.
MAX_PREPARED, MAX_PREPARED_BYTES = 64, 1 << 18

#: Only an end this soon after the request is taken for that of an idle connection that crossed it, in seconds: a
#: process that gets no turn for a while notices it late.
STALE_WITHIN_S = 1.0


class Redirected(UpstreamError):
    """It points elsewhere: `location` as it says it, empty where it doesn't say."""

    text = "The model server answered with a redirect."

    def __init__(self, status: int, location: str) -> None:
        super().__init__(detail=f"redirect {status}")
        self.redirect, self.location = status, location


class HttpReply:
    """An answer being read from a connection, which goes back to its pool when all of it was read."""

    def __init__(self, pool: Pool, connection: Connection, call: Call, idle_s: float, first_byte_at: float) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self._call = call
        self._idle_s = idle_s
        self._first_byte_at = first_byte_at
        #: When silence is over the limit; None: nobody has waited since the last data.
        self._idle_at: float | None = None
        self.status = 0
        self.headers: Headers = ()

    def wait_head(self, wait_s: float | None = None) -> bool:
        """See Reply.wait_head."""
        connection = self._connection
        if connection is None:
            raise UpstreamCut
        if self.status:
            return True
        if not connection.receive_head(self._call, self._first_byte_at, wait_s):
            return False
        if 300 <= connection.status < 400:
            # Following it would take the request, and its credentials, to another place.
            location = next((value for name, value in connection.headers if name == b"location"), b"")
            # Browsers read UTF-8 here, whatever the RFC says.
            raise Redirected(connection.status, location.decode("utf-8", "replace"))
        self.status = connection.status
        self.headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in connection.headers]
        return True

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """See Reply.read_some."""
        connection = self._connection
        if connection is None:
            return b""
        if self._idle_at is None:
            self._idle_at = time.monotonic() + self._idle_s
        data = connection.receive_body(self._call, self._idle_at, wait_s)
        if data is not None:
            self._idle_at = None
        if data == b"":
            self.close()
        return data

    def close(self) -> None:
        """Gives the connection back, or closes it when anything of the answer is left."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._call.detach()
            self._pool.release(connection)


class Pool:
    """The connections to one upstream: last used, first taken."""

    def __init__(
        self,
        base_url: str,
        tls: ssl.SSLContext | None,
        *,
        address: str | None = None,
        wait_timer: WaitTimer | None = None,
    ) -> None:
        url = urlsplit(base_url)
        self.host = url.hostname or ""
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self._tls = tls if url.scheme == "https" else None
        self._idle: list[tuple[float, Connection]] = []
        self._target = Host(address or self.host, self.port)
        self._alarm = wait_timer or WaitTimer()
        self._shares_alarm = wait_timer is not None
        self.active = 0
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections that wait to be used again."""
        return len(self._idle)

    def acquire(self, connect_s: float, *, fresh: bool = False) -> Connection:
        """A live connection, counted as active until it is released; `fresh` takes none that was used before.

        Raises UpstreamConnect.
        """
        oldest = time.monotonic() - MAX_IDLE_S
        while self._idle and not fresh:
            since, connection = self._idle.pop()
            # Input on an idle connection is its end, or an answer that nobody asked for.
            if since >= oldest and not connection.has_input():
                break
            connection.close()
        else:
            connection = Connection(self._connect(connect_s), self._alarm)
        self.active += 1
        return connection

    def release(self, connection: Connection) -> None:
        """Takes a connection back, to be used again where that is safe."""
        self.active -= 1
        if connection.reusable and len(self._idle) < MAX_IDLE_CONNECTIONS and not self._closed:
            self._idle.append((time.monotonic(), connection))
            # What a burst has left over sinks to the front and is closed there.
            while self._idle[0][0] < time.monotonic() - MAX_IDLE_S:
                self._idle.pop(0)[1].close()
        else:
            connection.close()

    def close(self) -> None:
        """Closes what is idle, and what is active as soon as it is released."""
        self._closed = True
        if not self._shares_alarm:
            self._alarm.close()
        idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _connect(self, connect_s: float) -> gsocket.socket:
        # One limit over name, address and TLS: each alone could take as long as it likes.
        limit, started = gevent.Timeout(connect_s), time.monotonic()
        sock: gsocket.socket | None = None
        try:
            with limit:
                sock = self._target.connect()
                sock.setsockopt(gsocket.IPPROTO_TCP, gsocket.TCP_NODELAY, 1)
                if self._tls:
                    # In two steps: a handshake that is given up inside wrap_socket leaves a socket that nobody closes.
                    sock = self._tls.wrap_socket(sock, server_hostname=self.host, do_handshake_on_connect=False)
                    sock.do_handshake()
                return sock
        except BaseException as error:  # also when nobody wants it any more: whoever opens, closes
            if sock is not None:
                sock.close()
            # A name may not even be one that can be asked for: UnicodeError.
            if error is not limit and not isinstance(error, OSError | UnicodeError):
                raise
            detail = f"connect to {self.host}:{self.port}: {type(error).__name__}: {error}"
            failure = UpstreamConnect(detail=detail)
            failure.took_s = time.monotonic() - started
            raise failure from error


class PoolAdapter(BaseAdapter):
    """Sends prepared requests over a pool. `timeout` is the Call whose limits count."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def send(  # type: ignore[override]  # the session hands through whatever `timeout` is; a Call is more than seconds
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Call | None = None,
        verify: bool | str = True,
        cert: object = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """See BaseAdapter.send; the answer is a Response whose `raw` is the reply."""
        assert timeout is not None, "every upstream call has its limits"
        answer = requests.Response()
        answer.raw = self._attempt(request, timeout, fresh=False) or self._attempt(request, timeout, fresh=True)
        return answer

    def _attempt(self, request: requests.PreparedRequest, call: Call, *, fresh: bool) -> HttpReply | None:
        """The reply, its request sent; None when a pooled connection turned out to be closed by the other side."""
        call.check()
        connection = self._pool.acquire(call.timeouts.connect_s, fresh=fresh)
        sent_at = time.monotonic()
        reply = HttpReply(self._pool, connection, call, call.timeouts.idle_s, sent_at + call.timeouts.first_byte_s)
        try:
            call.attach(connection.abort)
            self._send(connection, request, call)
            # The caller's heartbeat decides how long it waits; what a stale connection shows, it shows at once.
            reply.wait_head(getattr(request, "head_wait_s", None))
            return reply
        except UpstreamCut:
            reply.close()
            call.check()
            stale = connection.was_stale and time.monotonic() - sent_at < STALE_WITHIN_S
            if stale and isinstance(request.body, bytes) and getattr(request, "replayable", False):
                return None
            raise
        except BaseException:  # also when the worker is being stopped: whoever opens, closes
            reply.close()
            raise

    def _send(self, connection: Connection, request: requests.PreparedRequest, call: Call) -> None:
        lines = [f"{request.method} {request.path_url} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        body: bytes | Iterable[bytes] = request.body or b""  # type: ignore[assignment]  # never text here
        chunked = "Transfer-Encoding" in request.headers
        try:
            connection.send(head, body, call, chunked=chunked, headless=request.method == "HEAD")
        except TimeoutError as error:
            raise UpstreamTimeout("The model server did not accept the request in time.") from error
        except OSError:
            # It may have answered and closed before reading everything: what it said comes next, or its end does.
            call.check()

    def close(self) -> None:
        """Closes the pool."""
        self._pool.close()


class HttpTransport:
    """The session of one upstream; see Transport."""

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: Any = None,
        address: str | None = None,
        wait_timer: WaitTimer | None = None,
    ) -> None:
        """`tls`: an SSLContext in place of the one that trusts the system's authorities. `address`: where to connect
        to, in place of looking the host up. `alarm`: one to share, for a transport that does not stay."""
        url = urlsplit(base_url)
        self._prefix = url.path.rstrip("/")
        self._origin = f"{url.scheme}://{url.netloc}"
        self._pool = Pool(
            base_url, tls or (tls_context() if url.scheme == "https" else None), address=address, wait_timer=wait_timer
        )
        self._prepared = BoundedCache[tuple[str, str], requests.PreparedRequest](MAX_PREPARED, MAX_PREPARED_BYTES)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.clear()
        self._session.headers.update({"Host": url.netloc, "User-Agent": "ollama-proxy", "Accept-Encoding": "identity"})
        self._session.headers.update(headers or {})
        self._session.adapters.clear()
        self._session.mount(self._origin, PoolAdapter(self._pool))

    def open(self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None) -> HttpReply:
        """See Transport.open."""
        prepared = self._prepare(request)
        # Both travel with the request to the adapter.
        prepared.head_wait_s = head_wait_s  # type: ignore[attr-defined]
        prepared.replayable = request.replayable  # type: ignore[attr-defined]
        answer = self._session.send(
            prepared,
            stream=True,
            timeout=call,  # type: ignore[arg-type]  # see PoolAdapter.send
            allow_redirects=False,
            verify=True,
            proxies={},
        )
        return cast(HttpReply, answer.raw)

    def _prepare(self, request: UpstreamRequest) -> requests.PreparedRequest:
        """Preparing costs ten times a copy, and only the few constant paths are ever asked for."""
        key = (request.method, request.path)
        known = self._prepared.get(key)
        if known is None:
            url = self._origin + self._prefix + request.path
            known = self._session.prepare_request(requests.Request(request.method, url))
            if "/blobs/" not in request.path:
                self._prepared.put(key, known)
        prepared = known.copy()
        prepared.headers.update(request.headers)
        if isinstance(request.body, bytes):
            prepared.body = request.body
            if request.body or request.method not in ("GET", "HEAD"):
                prepared.headers["Content-Length"] = str(len(request.body))
        else:
            prepared.body = request.body  # type: ignore[assignment]  # an iterable of bytes, sent as it comes
            # requests notes a length of 0 for a POST without a body, and one body can't have two framings.
            prepared.headers.pop("Content-Length", None)
            framing = {"Transfer-Encoding": "chunked"} if request.length is None else {}
            prepared.headers.update(framing or {"Content-Length": str(request.length)})
        return prepared

    def counts(self) -> dict[str, int]:
        """See Transport.counts."""
        return {"active": self._pool.active, "idle": self._pool.idle}

    def close(self) -> None:
        """Closes the pool."""
        self._session.close()


def tls_context() -> ssl.SSLContext:
    """Trusts the authorities of the system, or those of requests where it has none; never what a variable names."""
    context: ssl.SSLContext = gssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    system = ssl.get_default_verify_paths()
    file = system.openssl_cafile if os.path.isfile(system.openssl_cafile) else DEFAULT_CA_BUNDLE_PATH
    folder = system.openssl_capath if os.path.isdir(system.openssl_capath) else None
    context.load_verify_locations(cafile=file, capath=folder)
    return context
