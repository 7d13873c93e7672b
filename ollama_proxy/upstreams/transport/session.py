"""The requests session of one upstream, with an adapter of our own below it.

Nothing else imports requests. The session is neutral: no environment, no cookies, no redirects. The
adapter keeps a pool of gevent connections, last used first, looks up names of hosts, and translates
every exception into one of ours.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import gevent
import requests
from gevent import socket as gsocket
from gevent import ssl as gssl
from requests.adapters import BaseAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import UpstreamConnect, UpstreamCut, UpstreamError, UpstreamTimeout
from ollama_proxy.texts import Translatable
from ollama_proxy.upstreams.base import Connections, Headers, UpstreamRequest
from ollama_proxy.upstreams.cache import BoundedCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.transport.connection import Connection, WaitTimer

MAX_IDLE_CONNECTIONS = 256

#: A connection that was idle this long is not used again, in seconds.
MAX_IDLE_S = 60.0

#: Requests that are kept prepared: their paths are constants, but for the pages of a provider's
#: list, and so are their headers, but for those that Ollama's clients choose; not forms, each of
#: which has a boundary of its own. Bytes of paths and headers.
MAX_PREPARED, MAX_PREPARED_BYTES = 256, 1 << 18

#: Only an end this soon after the request is treated as that of an idle connection which crossed
#: the request, in seconds; a busy process notices it late.
STALE_WITHIN_S = 1.0

#: The family and the argument of `connect`.
_Address = tuple[int, Any]


class Redirected(UpstreamError):
    """The upstream redirects: `location` is the header as sent, empty if there is none."""

    text = Translatable("The model server answered with a redirect.")

    def __init__(self, status: int, location: str) -> None:
        super().__init__(detail=f"redirect {status}")
        self.redirect, self.location = status, location


@dataclass(slots=True, eq=False)
class HttpReply:
    """An answer being read from a connection, which goes back to its pool
    when all of it was read."""

    _pool: Pool
    _connection: Connection | None
    _call: Call
    _idle_s: float
    #: When the wait for the head ends, and when the idle limit does; None: no
    #: wait since the last data.
    _first_byte_at: float
    _idle_at: float | None = None
    status: int = 0
    headers: Headers = ()

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
            # Following it would send the request, and its credentials, elsewhere.
            location = next(
                (value for name, value in connection.headers if name == b"location"), b""
            )
            # Browsers read UTF-8 here, unlike the RFC.
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
            self._idle_at = self._call.clock.monotonic() + self._idle_s
        data = connection.receive_body(self._call, self._idle_at, wait_s)
        if data is not None:
            self._idle_at = None
        if data == b"":
            self.close()
        return data

    def close(self) -> None:
        """Returns the connection to the pool, which closes it if the answer
        was not read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._call.detach()
            self._pool.release(connection)


@dataclass(slots=True, eq=False)
class Host:
    """A name or an address, and a port. It has one look-up of its name at a time: a name server
    that hangs blocks one of the few resolver threads, and not all of them."""

    _name: str
    _port: int
    _looking_up: gevent.Greenlet[[], list[_Address] | Exception] | None = None

    def connect(self) -> gsocket.socket:
        """A connection to the first of its addresses that takes one; raises
        OSError, UnicodeError."""
        found: list[_Address] | Exception = []
        for version in (gsocket.AF_INET, gsocket.AF_INET6):
            with contextlib.suppress(OSError, ValueError):
                gsocket.inet_pton(version, self._name)
                found = [(version, (self._name, self._port))]
        if not found:
            if self._looking_up is None or self._looking_up.ready():
                self._looking_up = gevent.spawn(self._look_up)
            found = self._looking_up.get()
        if isinstance(found, Exception):
            raise found
        failure = OSError("it has no address")
        for family, address in found:
            sock = gsocket.socket(family, gsocket.SOCK_STREAM)
            try:
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:  # also when the greenlet is killed: the socket must not leak
                sock.close()
                raise
        raise failure

    def _look_up(self) -> list[_Address] | Exception:
        try:
            found = gsocket.getaddrinfo(self._name, self._port, 0, gsocket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: not a host name
            return error
        return [(family, address) for family, _, _, _, address in found]


class Pool:
    """The connections to one upstream: last used, first taken."""

    def __init__(
        self,
        base_url: str,
        tls: ssl.SSLContext | None,
        *,
        address: str | None = None,
        wait_timer: WaitTimer | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        url, self._clock = urlsplit(base_url), clock
        self.host = url.hostname or ""
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self._tls = tls if url.scheme == "https" else None
        self._idle: list[tuple[float, Connection]] = []
        self.connections = Connections()
        self._target = Host(address or self.host, self.port)
        self._wait_timer = wait_timer or WaitTimer(clock=clock)
        self._owns_wait_timer = wait_timer is None
        self._closed = False

    def acquire(self, connect_s: float, *, fresh: bool = False) -> Connection:
        """A live connection, counted as active until it is released; `fresh` takes
        none that was used before.

        Raises UpstreamConnect.
        """
        oldest = self._clock.monotonic() - MAX_IDLE_S
        while self._idle and not fresh:
            since, connection = self._idle.pop()
            self.connections.idle -= 1
            # Input on an idle connection is its end, or an answer without a request.
            if since >= oldest and not connection.has_input():
                self.connections.active += 1
                return connection
            connection.close()
        # One limit over look-up, connection and TLS: none of them has one of its own.
        limit, started = gevent.Timeout(connect_s), self._clock.monotonic()
        sock: gsocket.socket | None = None
        try:
            with limit:
                sock = self._target.connect()
                sock.setsockopt(gsocket.IPPROTO_TCP, gsocket.TCP_NODELAY, 1)
                if self._tls:
                    # In two steps: an aborted handshake inside wrap_socket would leak the socket.
                    sock = self._tls.wrap_socket(
                        sock, server_hostname=self.host, do_handshake_on_connect=False
                    )
                    sock.do_handshake()
            connection = Connection(sock, self._wait_timer)
        except BaseException as error:  # also when the greenlet is killed: the socket must not leak
            if sock is not None:
                sock.close()
            # UnicodeError: the name is not a host name.
            if error is not limit and not isinstance(error, OSError | UnicodeError):
                raise
            detail = f"connect to {self.host}:{self.port}: {type(error).__name__}: {error}"
            failure = UpstreamConnect(detail=detail)
            failure.took_s = self._clock.monotonic() - started
            raise failure from error
        self.connections.active += 1
        return connection

    def release(self, connection: Connection) -> None:
        """Takes a connection back, to be used again if that is safe."""
        self.connections.active -= 1
        if connection.reusable and len(self._idle) < MAX_IDLE_CONNECTIONS and not self._closed:
            now = self._clock.monotonic()
            self._idle.append((now, connection))
            # Connections left over from a burst sink to the front and are closed there.
            while self._idle[0][0] < now - MAX_IDLE_S:
                self._idle.pop(0)[1].close()
            self.connections.idle = len(self._idle)
        else:
            connection.close()

    def close(self) -> None:
        """Closes idle connections now, and active ones as soon as they are released."""
        self._closed = True
        if self._owns_wait_timer:
            self._wait_timer.close()
        idle, self._idle, self.connections.idle = self._idle, [], 0
        for _, connection in idle:
            connection.close()


class Sending(NamedTuple):
    """A request on its way through the session to the adapter."""

    request: UpstreamRequest
    #: The request line and all headers.
    head: bytes
    call: Call
    head_wait_s: float | None


class NeutralSession(requests.Session):
    """A session without environment, cookies and redirects."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.clear()
        self.adapters.clear()

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Hands a prepared request to its adapter. Hooks, cookies, redirects and timing, with which
        requests surrounds that, cost more than the adapter and have no use here."""
        return self.get_adapter(cast("str", request.url)).send(request, **kwargs)


class Answer(requests.Response):
    """What requests calls a response; everything about it is in `raw`, the reply."""

    def __init__(self, reply: HttpReply) -> None:
        # Not that of the base class: a jar of cookies for each answer costs more than all else
        # that the session does.
        self.raw = reply


class PoolAdapter(BaseAdapter):
    """Sends requests over a pool. `timeout` is the Sending, with the Call whose limits count."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def send(  # type: ignore[override]  # the session passes `timeout` through as it is
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Sending | None = None,
        verify: bool | str = True,
        cert: object = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """See BaseAdapter.send; the answer is a Response whose `raw` is the reply."""
        assert timeout is not None, "every upstream call has its limits"
        return Answer(
            self._attempt(timeout, fresh=False)
            or cast(HttpReply, self._attempt(timeout, fresh=True))
        )

    def _attempt(self, sending: Sending, *, fresh: bool) -> HttpReply | None:
        """Sends the request and returns its reply; None if the other side had
        closed a pooled connection."""
        request, head, call, head_wait_s = sending
        call.check()
        connection = self._pool.acquire(call.timeouts.connect_s, fresh=fresh)
        sent_at = call.clock.monotonic()
        reply = HttpReply(
            self._pool, connection, call, call.timeouts.idle_s, sent_at + call.timeouts.first_byte_s
        )
        try:
            call.attach(connection.abort)
            try:
                connection.send(
                    head,
                    request.body,
                    call,
                    chunked=request.length is None,
                    headless=request.method == "HEAD",
                )
            except TimeoutError as error:
                raise UpstreamTimeout(
                    "The model server did not accept the request in time."
                ) from error
            except OSError:
                # It may have answered and closed before reading everything: its answer
                # comes next, or its end.
                call.check()
            # Waits one heartbeat at most; a stale connection fails at once.
            reply.wait_head(head_wait_s)
            return reply
        except UpstreamCut:
            reply.close()
            call.check()
            stale = connection.was_stale and call.clock.monotonic() - sent_at < STALE_WITHIN_S
            if stale and isinstance(request.body, bytes) and request.replayable:
                return None
            raise
        except BaseException:  # also when the greenlet is killed: the connection must not leak
            reply.close()
            raise


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
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`tls`: an SSLContext in place of the one that trusts the system's authorities. `address`:
        the address to connect to, in place of looking up the host. `wait_timer`: one to share, for
        a short-lived transport."""
        url = urlsplit(base_url)
        self._prefix = url.path.rstrip("/")
        self._origin = f"{url.scheme}://{url.netloc}"
        self._pool = Pool(
            base_url,
            tls or (tls_context() if url.scheme == "https" else None),
            address=address,
            wait_timer=wait_timer,
            clock=clock,
        )
        self.connections, self.close = self._pool.connections, self._pool.close
        self._prepared = BoundedCache[tuple[object, ...], tuple[requests.PreparedRequest, bytes]](
            MAX_PREPARED, MAX_PREPARED_BYTES
        )
        self._session = NeutralSession()
        self._session.headers.update(
            {"Host": url.netloc, "User-Agent": "ollama-proxy", "Accept-Encoding": "identity"}
        )
        self._session.headers.update(headers or {})
        self._session.mount(self._origin, PoolAdapter(self._pool))

    def open(
        self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None
    ) -> HttpReply:
        """See Transport.open."""
        # The same for all requests with this path and these headers: what the session takes, and
        # the head without the framing of the body.
        key = (request.method, request.path, *request.headers)
        known = self._prepared.get(key)
        if known is None:
            url = self._origin + self._prefix + request.path
            prepared = self._session.prepare_request(requests.Request(request.method, url))
            prepared.headers.update(request.headers)
            # requests sets a length of 0 for a POST without a body.
            prepared.headers.pop("Content-Length", None)
            lines = [f"{name}: {value}\r\n" for name, value in prepared.headers.items()]
            known = (
                prepared,
                f"{request.method} {prepared.path_url} HTTP/1.1\r\n{''.join(lines)}".encode(
                    "latin-1"
                ),
            )
            if "/blobs/" not in request.path and b"boundary=" not in known[1]:
                self._prepared.put(key, known)
        prepared, head = known
        head += call.trace_lines
        if not isinstance(request.body, bytes):
            framing = (
                b"Transfer-Encoding: chunked"
                if request.length is None
                else b"Content-Length: %d" % request.length
            )
            head += framing + b"\r\n"
        elif request.body or request.method not in ("GET", "HEAD"):
            head += b"Content-Length: %d\r\n" % len(request.body)
        answer = self._session.send(
            prepared,
            timeout=Sending(request, head + b"\r\n", call, head_wait_s),  # see PoolAdapter.send
        )
        return cast(HttpReply, answer.raw)


def tls_context() -> ssl.SSLContext:
    """Trusts the authorities of the system, or those of requests if it has none;
    ignores the environment."""
    context: ssl.SSLContext = gssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    system = ssl.get_default_verify_paths()
    file = (
        system.openssl_cafile if os.path.isfile(system.openssl_cafile) else DEFAULT_CA_BUNDLE_PATH
    )
    folder = system.openssl_capath if os.path.isdir(system.openssl_capath) else None
    context.load_verify_locations(cafile=file, capath=folder)
    return context
