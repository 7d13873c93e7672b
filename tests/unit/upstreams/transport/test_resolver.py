"""Where a host answers: one look-up at a time, and none for what is an address already."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket as gsocket

from ollama_proxy.upstreams.transport.resolver import Host

Found = list[tuple[int, int, int, str, Any]]


@pytest.fixture
def listening() -> Iterator[int]:
    """A port of 127.0.0.1 that takes connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


class Resolver:
    """Looks up names as a test says, and counts."""

    def __init__(self, answer: Callable[[], Found]) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self, *args: Any) -> Found:
        self.asked += 1
        gevent.sleep(0.05)
        return self.answer()


def resolver(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Found]) -> Resolver:
    made = Resolver(answer)
    monkeypatch.setattr(gsocket, "getaddrinfo", made)
    return made


def at(address: str, port: int, family: int = socket.AF_INET) -> Any:
    return (family, socket.SOCK_STREAM, 6, "", (address, port))


def unknown() -> Found:
    raise socket.gaierror(-2, "Name or service not known")


def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    names = resolver(monkeypatch, unknown)
    Host("127.0.0.1", listening).connect().close()
    with pytest.raises(OSError):
        Host("::1", 1).connect()
    assert names.asked == 0


def test_many_connections_are_one_look_up_at_a_time(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    names = resolver(monkeypatch, lambda: [at("127.0.0.1", listening)])
    host = Host("box1", listening)
    for rounds in (1, 2):
        waiting = [gevent.spawn(host.connect) for _ in range(20)]
        for each in waiting:
            each.get().close()
        assert names.asked == rounds


def test_each_of_them_is_told_that_there_is_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = resolver(monkeypatch, unknown)
    host = Host("box1", 80)

    def failed() -> bool:
        with pytest.raises(socket.gaierror):
            host.connect()
        return True

    assert all(each.get() for each in [gevent.spawn(failed) for _ in range(5)])
    assert names.asked == 1


def test_who_gives_up_leaves_the_look_up_to_the_others(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    names = resolver(monkeypatch, lambda: [at("127.0.0.1", listening)])
    host = Host("box1", listening)
    other = gevent.spawn(host.connect)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        host.connect()
    other.get().close()
    assert names.asked == 1


def test_the_next_address_is_tried_when_one_takes_no_connection(
    monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    resolver(monkeypatch, lambda: [at("::1", 1, socket.AF_INET6), at("127.0.0.1", 1), at("127.0.0.1", listening)])
    with Host("box1", listening).connect() as connected:
        assert connected.getpeername() == ("127.0.0.1", listening)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 70 + ".example"])
def test_what_is_no_name_is_an_error_that_is_known(name: str) -> None:
    with pytest.raises((OSError, UnicodeError)):
        Host(name, 1).connect()
