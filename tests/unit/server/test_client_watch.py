"""The watch on the clients that wait."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from ollama_proxy.server.client_watch import WATCH_INTERVAL_S, ClientWatch
from ollama_proxy.settings.timeouts import Timeouts
from ollama_proxy.upstreams.call import Call


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The gateway's end of a client's connection, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, client:
        yield ours, client


def call(**limits: float) -> Call:
    return Call(Timeouts(**limits))


class Aborts(list[int]):
    """Counts how often a call was cancelled."""

    def __call__(self) -> None:
        self.append(1)


# --- ClientWatch -----------------------------------------------------------------------------------------------------


def leave_politely(client: socket.socket) -> None:
    client.close()


def leave_half(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


def leave_with_a_reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def leave_behind_bytes(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    client.close()


@pytest.mark.parametrize("leave", [leave_politely, leave_half, leave_with_a_reset, leave_behind_bytes])
def test_client_that_left_ends_its_call(pair: tuple[socket.socket, socket.socket], leave: Any) -> None:
    watch, one, aborts = ClientWatch(), call(), Aborts()
    one.attach(aborts)
    watch.add(pair[0], one)
    leave(pair[1])
    watch.look()
    assert (bool(one.ended), aborts, watch.active) == (True, [1], 0)


def test_client_that_stays_or_sends_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    watch, one = ClientWatch(), call()
    watch.add(pair[0], one)
    pair[1].sendall(b"more")
    watch.look()
    assert (bool(one.ended), watch.active) == (False, 1)


def test_removing_twice_does_no_harm(pair: tuple[socket.socket, socket.socket]) -> None:
    watch = ClientWatch()
    remove = watch.add(pair[0], call())
    remove()
    remove()
    assert watch.active == 0


def test_removing_after_the_client_left_does_no_harm(pair: tuple[socket.socket, socket.socket]) -> None:
    watch = ClientWatch()
    remove = watch.add(pair[0], call())
    pair[1].close()
    watch.look()
    remove()
    assert watch.active == 0


def test_next_call_on_a_connection_is_not_removed_by_the_one_before(pair: tuple[socket.socket, socket.socket]) -> None:
    watch, second = ClientWatch(), call()
    remove_first = watch.add(pair[0], call())
    watch.add(pair[0], second)
    remove_first()
    pair[1].close()
    watch.look()
    assert (bool(second.ended), watch.active) == (True, 0)


def test_descriptor_that_was_closed_unseen_ends_its_call() -> None:
    ours, client = socket.socketpair()
    watch, one = ClientWatch(), call()
    watch.add(ours, one)
    ours.close()
    client.close()
    watch.look()
    assert (bool(one.ended), watch.active) == (True, 0)


def test_stalled_client_is_cut_without_losing_its_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    watch, one = ClientWatch(), call(send_idle_s=1)
    watch.add(pair[0], one)
    one.sending_since = time.monotonic() - 2
    descriptors = len(os.listdir("/proc/self/fd"))
    watch.look()
    assert pair[1].recv(1) == b""
    with pytest.raises(BrokenPipeError):
        pair[0].sendall(b"x" * 100)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_client_that_reads_is_not_cut(pair: tuple[socket.socket, socket.socket]) -> None:
    watch, one = ClientWatch(), call(send_idle_s=1)
    watch.add(pair[0], one)
    one.sending_since = time.monotonic() - 0.5
    watch.look()
    pair[0].sendall(b"x")
    assert pair[1].recv(1) == b"x"


def test_watch_looks_by_itself_while_there_are_clients(pair: tuple[socket.socket, socket.socket]) -> None:
    watch, one = ClientWatch(), call()
    watch.add(pair[0], one)
    pair[1].close()
    began = time.monotonic()
    while not one.ended and time.monotonic() - began < 5:
        gevent.sleep(0.02)
    assert one.ended


def test_watch_wakes_up_again_after_an_idle_time(pair: tuple[socket.socket, socket.socket]) -> None:
    watch, first, second = ClientWatch(), call(), call()
    remove = watch.add(pair[0], first)
    remove()
    gevent.sleep(2 * WATCH_INTERVAL_S)  # long enough for the watch to go to sleep
    watch.add(pair[0], second)
    pair[1].close()
    began = time.monotonic()
    while not second.ended and time.monotonic() - began < 5:
        gevent.sleep(0.02)
    assert second.ended
