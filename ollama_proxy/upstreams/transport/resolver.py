"""Connections to a host by name or address. One look-up of a name at a time: a name server that hangs blocks one of the
few resolver threads, and not all of them."""

from __future__ import annotations

import contextlib
from typing import Any

import gevent
from gevent import socket as gsocket

#: The family and the argument of `connect`.
_Address = tuple[int, Any]


class Host:
    """A name or an address, and a port."""

    def __init__(self, name: str, port: int) -> None:
        self._name, self._port = name, port
        self._looking_up: gevent.Greenlet[[], list[_Address] | Exception] | None = None

    def connect(self) -> gsocket.socket:
        """A connection to the first of its addresses that takes one; raises OSError, UnicodeError."""
        failure = OSError("it has no address")
        for family, address in self._addresses():
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

    def _addresses(self) -> list[_Address]:
        for family in (gsocket.AF_INET, gsocket.AF_INET6):
            with contextlib.suppress(OSError, ValueError):
                gsocket.inet_pton(family, self._name)
                return [(family, (self._name, self._port))]
        if self._looking_up is None or self._looking_up.ready():
            self._looking_up = gevent.spawn(self._look_up)
        found = self._looking_up.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _look_up(self) -> list[_Address] | Exception:
        try:
            found = gsocket.getaddrinfo(self._name, self._port, 0, gsocket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: not a host name
            return error
        return [(family, address) for family, _, _, _, address in found]
