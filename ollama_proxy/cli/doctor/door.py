"""The address at which clients reach the gateway, asked as a client asks."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

#: Longest wait for an answer that is not delayed on purpose, in seconds.
TIMEOUT_S = 10.0

#: What can go wrong on the way.
FAILURES = (OSError, HTTPException)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    #: Address and port from which it was asked.
    source: tuple[str, int] = ("", 0)

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON object, or that of its first line; an empty one if there is none."""
        try:
            found = json.loads(self.body.partition(b"\n")[0])
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Door:
    """An address, and the token of who asks there. `checks_certificate`: not after that was found
    invalid, so that the rest can be checked."""

    url: str
    token: str = field(default="", repr=False)
    checks_certificate: bool = True

    @property
    def host(self) -> str:
        """The host of the address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port of the address."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def is_encrypted(self) -> bool:
        """Whether clients use TLS."""
        return self.url.startswith("https:")

    def connect(self, timeout_s: float = TIMEOUT_S) -> HTTPConnection:
        """Returns a connection. Raises OSError, also ssl.SSLCertVerificationError."""
        if self.is_encrypted:
            context = ssl.create_default_context()
            if not self.checks_certificate:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: HTTPConnection = HTTPSConnection(
                self.host, self.port, timeout=timeout_s, context=context
            )
        else:
            connection = HTTPConnection(self.host, self.port, timeout=timeout_s)
        connection.connect()
        return connection

    def path_of(self, path: str) -> str:
        """Returns a path below the address."""
        return urlsplit(self.url).path.rstrip("/") + path

    def ask(
        self, path: str, headers: Mapping[str, str] | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """Returns the answer to a GET, with the token unless `headers` are given. Raises
        OSError, HTTPException."""
        with closing(self.connect(timeout_s)) as connection:
            source = connection.sock.getsockname()[:2]
            connection.request("GET", self.path_of(path), headers=self._with_token(headers))
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read(), source)

    def post(self, path: str, body: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Returns the JSON object with which a server answers one. Raises
        OSError, HTTPException."""
        with closing(self.connect(timeout_s)) as connection:
            headers = {"Content-Type": "application/json", **self._with_token(None)}
            connection.request("POST", self.path_of(path), json.dumps(body), headers)
            return Answer(0, {}, connection.getresponse().read()).document

    def time_lines(self, path: str, *, timeout_s: float) -> Iterator[float]:
        """Yields the monotonic time at which each line of a stream has arrived. Raises OSError,
        HTTPException; also if the stream is cut, or the status is not 200."""
        with closing(self.connect(timeout_s)) as connection:
            connection.request("GET", self.path_of(path), headers=self._with_token(None))
            answer = connection.getresponse()
            if answer.status != 200:
                raise HTTPException(f"status {answer.status}")
            while data := answer.read1(65536):
                for _ in range(data.count(b"\n")):
                    yield time.monotonic()

    def offer_body(self, path: str, size: int) -> int:
        """Returns the status with which a body of so many bytes is refused before any of it is
        sent; 0: it would be taken, or nothing was said for a second. Raises OSError."""
        lines = [
            f"POST {self.path_of(path)} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Content-Length: {size}",
        ]
        lines += ["Content-Type: application/json", "Expect: 100-continue", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self._with_token(None).items()]
        with closing(self.connect(1.0)) as connection:
            connection.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            try:
                words = connection.sock.recv(4096).split(b" ", 2)
            except TimeoutError:
                return 0
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        return status if status >= 400 else 0

    def _with_token(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        if headers is not None or not self.token:
            return dict(headers or {})
        return {"Authorization": f"Bearer {self.token}"}
