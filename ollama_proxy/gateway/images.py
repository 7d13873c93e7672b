"""Fetches the images that clients give by URL, only from hosts that the operator allows.

A host is looked up once, each of its addresses is checked, and the connection goes to one of these
very addresses: a later change of the name has no effect. Each redirect is a new host. The text of a
refusal is the same whether the host exists or not.
"""

from __future__ import annotations

import socket
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from urllib.parse import urljoin, urlsplit

import gevent
from gevent import monkey
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

from ollama_proxy.errors import (
    BadRequest,
    GatewayError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from ollama_proxy.hub import ImageUrl
from ollama_proxy.policy import (
    MAX_URL_CHARS,
    NO_WEB_ADDRESS,
    FetchPolicy,
    as_address,
    is_web_address,
    plain_host,
)
from ollama_proxy.settings import Images, Timeouts
from ollama_proxy.upstreams import (
    Call,
    HttpTransport,
    Redirected,
    UpstreamRequest,
    WaitTimer,
    tls_context,
)
from ollama_proxy.wire import SIGNATURE_BYTES, media_type

#: Limits of one request.
MAX_URLS = 16
MAX_AT_ONCE = 4
#: Bytes of all its images, counting repetitions; one image of the largest size is always allowed.
MAX_TOTAL_BYTES = 40 << 20
#: Limit of one image.
MAX_REDIRECTS = 5

#: Limit for each address of a host, in seconds: the next address may answer.
CONNECT_S = 3.0

#: Lookups at the same time, in total and for one caller. They have threads of their own: names with
#: a slow lookup are easy to make, and neither the lookups of upstreams nor those of other callers
#: may wait behind them.
LOOKUPS, MAX_LOOKUPS_AT_ONCE = 16, 2

_PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = (("Accept", "image/png, image/jpeg, image/webp, image/gif"),)

#: What models can be shown, if necessary after it was converted.
DECODABLE = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})

INSTEAD = "or send the image itself, in base64"
NO_URL = f"must be an http or https URL, without user and password, {INSTEAD}"
NOT_ANYWHERE = "this gateway fetches no images: send the image itself, in base64"
NOT_FROM_THERE = (
    "this gateway fetches no images from this host, which is unknown, or private and not "
    f"allowed: {INSTEAD[3:]}"
)
NO_IMAGE = "must be a PNG, JPEG, WebP or GIF image"

#: Why an image could not be fetched; `{0}` are the settings.
_REASONS = {
    UpstreamTimeout: "did not arrive in {0.timeout_s:g} s",
    UpstreamConnect: "its server can't be reached",
    UpstreamCut: "its server stopped in the middle of its answer",
}

#: Maps host and port to the texts of all addresses.
Resolver = Callable[[str, int], list[str]]


@cache
def _lookups() -> ThreadPool:
    return ThreadPool(LOOKUPS)


@cache
def _wait_timer() -> WaitTimer:
    """One for all fetchers: its greenlet never ends, while new settings create another fetcher."""
    return WaitTimer()


def resolve(host: str, port: int) -> list[str]:
    """Returns the addresses of a host, best first; none if its name is unknown."""
    return _lookups().apply(_look_up, (host, port))


def _look_up(host: str, port: int) -> list[str]:
    """Runs in a thread, and raises nothing: gevent would print an exception there as unhandled."""
    try:
        found = monkey.get_original("socket", "getaddrinfo")(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class ImageLocation:
    """The target of a URL; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and, unless it is the default, port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (
            f":{self.port}" if self.port != _PORTS[self.scheme] else ""
        )


def location_of(url: str) -> ImageLocation:
    """Returns the target of `url`; raises BadRequest for anything but a plain http or https URL."""
    # Checked first, because the standard library caches the URLs that it has split.
    if len(url) > MAX_URL_CHARS:
        raise BadRequest(NO_URL)
    try:
        parts = urlsplit(url)
        host, port = plain_host(parts.hostname or ""), parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        raise BadRequest(NO_URL) from None
    # Userinfo can make a host look like another one, and unprintable characters may end a line.
    plain = "@" not in parts.netloc and url.isprintable()
    if port is None or parts.scheme not in _PORTS or not plain:
        raise BadRequest(NO_URL)
    return ImageLocation(
        parts.scheme, host, port, (parts.path or "/") + f"?{parts.query}" * bool(parts.query)
    )


@dataclass(slots=True)
class _CallerSlots:
    """The lookups of one caller: the running ones, and those that wait for one of them to end."""

    free: BoundedSemaphore
    users: int = 0


class Lookups:
    """Looks up hosts, at most two at a time for each caller, over all of its requests: slow lookups
    of one caller leave the other threads to others."""

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        #: By caller; only those with a lookup that runs or waits.
        self._slots: dict[str, _CallerSlots] = {}

    def look_up(self, caller: str, host: str, port: int) -> list[str]:
        """Returns the addresses of a host. The caller's time limit ends the wait but not the
        lookup, which continues in its thread and keeps its slot until it ends."""
        slots = self._slots.setdefault(caller, _CallerSlots(BoundedSemaphore(MAX_LOOKUPS_AT_ONCE)))
        slots.users += 1
        acquired = False
        try:
            acquired = slots.free.acquire()
        finally:
            # Interrupted while it waited: there is no lookup whose end would release this.
            if not acquired:
                self._leave(caller, slots)
        lookup = gevent.spawn(self._resolve, host, port)

        def release(_: object) -> None:
            slots.free.release()
            self._leave(caller, slots)

        lookup.rawlink(release)
        return lookup.get()

    def _leave(self, caller: str, slots: _CallerSlots) -> None:
        slots.users -= 1
        if not slots.users:
            del self._slots[caller]


class _Round:
    """The shared limits of the images of one request."""

    def __init__(self, caller: str, max_bytes: int) -> None:
        self.caller = caller
        self.slots = BoundedSemaphore(MAX_AT_ONCE)
        self._max_bytes = max_bytes
        self._bytes = 0

    def check(self, size: int) -> None:
        """Raises BadRequest if the request may not load this many more bytes."""
        if self._bytes + size > self._max_bytes:
            raise BadRequest(
                f"exceeds the limit of {self._max_bytes} bytes for all images of one request"
            )

    def take(self, size: int) -> None:
        """Counts bytes; raises BadRequest, and does not count them, if they are too many."""
        self.check(size)
        self._bytes += size


@dataclass(frozen=True, slots=True)
class _Job:
    """The fetch of one image; `times`: how often the request contains it."""

    call: Call
    round: _Round
    times: int


class ImageFetcher:
    """Fetches images within the limits of `images` in the configuration."""

    def __init__(self, settings: Images, resolve: Resolver = resolve, *, tls: Any = None) -> None:
        """`tls`: an SSLContext instead of the one that trusts the system's authorities."""
        self._settings = settings
        self._policy = FetchPolicy(settings.fetch, settings.allow)
        self._lookups = Lookups(resolve)
        self._tls = tls
        limit_s = settings.timeout_s
        self._timeouts = Timeouts(
            connect_s=min(CONNECT_S, limit_s), first_byte_s=limit_s, idle_s=limit_s, total_s=limit_s
        )

    def fetch_all(
        self, wanted: Sequence[ImageUrl], call: Call, caller: str, heartbeat_s: float | None = None
    ) -> Generator[tuple[()], None, list[str]]:
        """Returns the base64 of each image, in their order; repeated images are fetched once.
        Yields after each `heartbeat_s` seconds that this takes. `caller`: see Lookups.

        Raises BadRequest for the first image that can't be fetched, CallEnded as
        soon as the client has left.
        """
        first: dict[str, ImageUrl] = {}
        for each in wanted:
            first.setdefault(each.url, each)
        self._check_asked(list(first.values()))
        times = Counter(each.url for each in wanted)
        shared = _Round(caller, max(self._settings.max_bytes, MAX_TOTAL_BYTES))
        jobs = [gevent.spawn(self._fetch_one, url, call, shared, times[url]) for url in first]
        try:
            call.attach(partial(gevent.killall, jobs, block=False))
            found: dict[str, str] = {}
            for each, job in zip(first.values(), jobs, strict=True):
                call.clock.join([job], heartbeat_s)
                while not job.ready():
                    yield ()
                    call.clock.join([job], heartbeat_s)
                outcome = job.get()
                call.check()
                if isinstance(outcome, GatewayError):
                    # A new error: one that its own traceback refers to stays in memory
                    # until garbage collection.
                    raise _about(each, outcome)
                found[each.url] = outcome
        finally:
            call.detach()
            gevent.killall(jobs)
        return [found[each.url] for each in wanted]

    def check_all(self, wanted: Sequence[ImageUrl], call: Call, caller: str) -> None:
        """Raises BadRequest for the first address that this gateway may not fetch, so that
        no upstream fetches it either. Looks each host up once, and fetches nothing.
        `caller`: see Lookups."""
        for each in wanted:
            if not is_web_address(each.url):
                raise _about(each, BadRequest(NO_WEB_ADDRESS))
        self._check_asked(wanted[:1])
        job, hosts = _Job(call, _Round(caller, max_bytes=0), 1), set[str]()
        with gevent.Timeout(self._settings.timeout_s, BadRequest(NOT_FROM_THERE)):
            for each in wanted:
                try:
                    location = location_of(each.url)
                    if location.host not in hosts:
                        if len(hosts) >= MAX_URLS:
                            raise BadRequest(f"exceeds the limit of {MAX_URLS} hosts")
                        self._look_up_allowed(location, job)
                        hosts.add(location.host)
                except BadRequest as error:
                    raise _about(each, error) from None
        call.check()

    def _check_asked(self, asked: Sequence[ImageUrl]) -> None:
        if asked and self._settings.fetch == "off":
            raise _about(asked[0], BadRequest(NOT_ANYWHERE))
        if len(asked) > MAX_URLS:
            raise _about(
                asked[MAX_URLS], BadRequest(f"exceeds the limit of {MAX_URLS} images by URL")
            )

    def _fetch_one(self, url: str, call: Call, shared: _Round, times: int) -> str | GatewayError:
        """Runs in a greenlet, and returns errors: gevent would print a raised one as unhandled."""
        with shared.slots:
            try:
                # One limit over lookups, connections, redirects and reading.
                with gevent.Timeout(self._settings.timeout_s, UpstreamTimeout()):
                    job = _Job(call.branch(self._timeouts), shared, times)
                    return b64encode(self._follow(url, job)).decode("ascii")
            except GatewayError as error:
                return error

    def _follow(self, url: str, job: _Job) -> bytearray:
        for _ in range(1 + MAX_REDIRECTS):
            location = location_of(url)
            try:
                return self._fetch(location, job)
            except Redirected as error:
                if error.redirect not in REDIRECTS or not error.location:
                    raise _refused(error.redirect) from None
                if len(error.location) > MAX_URL_CHARS:
                    raise BadRequest(NO_URL) from None
                try:
                    url = urljoin(url, error.location)
                except ValueError:
                    raise BadRequest(NO_URL) from None
            except UpstreamError as error:
                reason = _REASONS.get(type(error), "its server sent an invalid response").format(
                    self._settings
                )
                detail = f"image from {location.host}: {type(error).__name__} {error.detail}"
                raise BadRequest(f"{reason}: check the URL, {INSTEAD}", detail=detail) from error
        raise BadRequest(f"redirects more than {MAX_REDIRECTS} times: use the final URL, {INSTEAD}")

    def _fetch(self, location: ImageLocation, job: _Job) -> bytearray:
        """Fetches from the first address that accepts a connection. Raises BadRequest,
        UpstreamError, CallEnded."""
        *others, last = self._look_up_allowed(location, job)
        for address in others:
            with suppress(UpstreamConnect):
                return self._fetch_from(address, location, job)
        return self._fetch_from(last, location, job)

    def _fetch_from(self, address: str, location: ImageLocation, job: _Job) -> bytearray:
        if location.scheme == "https" and self._tls is None:
            # Created once: reading the authorities takes longer than fetching most images.
            self._tls = tls_context()
        transport = HttpTransport(
            location.origin, tls=self._tls, address=address, wait_timer=_wait_timer()
        )
        with (
            closing(transport),
            closing(
                transport.open(UpstreamRequest("GET", location.path, headers=HEADERS), job.call)
            ) as reply,
        ):
            if reply.status != 200:
                raise _refused(reply.status)
            length = dict(reply.headers).get("content-length", "")
            declared = int(length) if length.isdecimal() else 0
            self._check_size(declared)
            job.round.check(declared * job.times)
            data = bytearray()
            while piece := reply.read_some():
                data += piece
                self._check_size(len(data))
                job.round.take(len(piece) * job.times)
                if len(data) >= SIGNATURE_BYTES and media_type(data) not in DECODABLE:
                    break
            if media_type(data) not in DECODABLE:
                raise BadRequest(NO_IMAGE)
            return data

    def _look_up_allowed(self, location: ImageLocation, job: _Job) -> list[str]:
        """Returns all addresses of an allowed host; raises BadRequest for any other one. An unknown
        name is refused like a forbidden one, so that no private name is revealed."""
        if as_address(location.host):
            texts = [location.host]
        else:
            texts = self._lookups.look_up(job.round.caller, location.host, location.port)
        addresses = [address for address in map(as_address, texts) if address]
        if not self._policy.permits(location.host, addresses):
            raise BadRequest(
                NOT_FROM_THERE,
                detail=f"image from {location.host}: at {', '.join(texts)[:200] or 'nowhere'}",
            )
        return [str(address) for address in addresses]

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise BadRequest(f"is larger than {self._settings.max_bytes} bytes: make it smaller")


def _about(wanted: ImageUrl, error: GatewayError) -> BadRequest:
    """Returns the error with the part of the request that it is about."""
    return BadRequest(f"{wanted.where}: {error}", param=wanted.where, detail=error.detail)


def _refused(status: int) -> BadRequest:
    return BadRequest(f"its server answered with status {status}: check the URL, {INSTEAD}")
