"""The watch on the clients that wait."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gevent
import pytest
from gevent import socket as gsocket

from ollama_proxy.errors import CallEnded
from ollama_proxy.server.client_watch import WATCH_INTERVAL_S, ClientWatch
from ollama_proxy.server.connection import Connection
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from tests.rig.clock import ManualClock


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


# --- ClientWatch ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "leave", [leave_politely, leave_half, leave_with_a_reset, leave_behind_bytes]
)
def test_client_that_left_ends_its_call(
    pair: tuple[socket.socket, socket.socket], leave: Any
) -> None:
    watch, one, aborts = ClientWatch(), call(), Aborts()
    one.attach(aborts)
    watch.add(Connection(pair[0]), one)
    leave(pair[1])
    watch.look()
    assert (bool(one.ended), aborts, watch.active) == (True, [1], 0)


def test_client_that_stays_or_sends_is_left_alone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    watch, one = ClientWatch(), call()
    watch.add(Connection(pair[0]), one)
    pair[1].sendall(b"more")
    watch.look()
    assert (bool(one.ended), watch.active) == (False, 1)


def test_connection_knows_whether_it_is_watched(pair: tuple[socket.socket, socket.socket]) -> None:
    watch, connection = ClientWatch(), Connection(pair[0])
    remove = watch.add(connection, call())
    assert connection.is_watched
    remove()
    assert not connection.is_watched


def test_removing_twice_does_no_harm(pair: tuple[socket.socket, socket.socket]) -> None:
    watch = ClientWatch()
    remove = watch.add(Connection(pair[0]), call())
    remove()
    remove()
    assert watch.active == 0


def test_removing_after_the_client_left_does_no_harm(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    watch = ClientWatch()
    remove = watch.add(Connection(pair[0]), call())
    pair[1].close()
    watch.look()
    remove()
    assert watch.active == 0


def test_next_call_on_a_connection_is_not_removed_by_the_one_before(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    watch, second = ClientWatch(), call()
    remove_first = watch.add(Connection(pair[0]), call())
    watch.add(Connection(pair[0]), second)
    remove_first()
    pair[1].close()
    watch.look()
    assert (bool(second.ended), watch.active) == (True, 0)


def test_descriptor_that_was_closed_unseen_ends_its_call() -> None:
    ours, client = socket.socketpair()
    watch, one = ClientWatch(), call()
    watch.add(Connection(ours), one)
    ours.close()
    client.close()
    watch.look()
    assert (bool(one.ended), watch.active) == (True, 0)


def flood(connection: Connection) -> gevent.Greenlet[..., None]:
    """Sends more than the kernel takes."""

    def send() -> None:
        with suppress(OSError):
            connection.send(b"x" * 30_000_000)

    return gevent.spawn(send)


@pytest.fixture
def taking_nothing(
    pair: tuple[socket.socket, socket.socket], clock: ManualClock
) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection into which more is being sent than its client takes, and the client."""
    with gsocket.socket(fileno=os.dup(pair[0].fileno())) as ours:
        connection = Connection(ours, clock=clock)
        sending = flood(connection)
        gevent.sleep(0.05)  # until the kernels take no more
        yield connection, pair[1]
        sending.kill()


def look_for(watch: ClientWatch, seconds: float, clock: ManualClock) -> None:
    """Look regularly, as the watch does by itself."""
    for _ in range(round(seconds / 0.02)):
        watch.look()
        clock.advance(0.02)


def is_cut(client: socket.socket) -> bool:
    """Whether the connection ends behind what the kernels hold."""
    client.settimeout(1)
    size = 0
    try:
        while data := client.recv(1 << 20):
            size += len(data)
    except TimeoutError:
        return False
    return size < 30_000_000


def test_stalled_client_is_cut_without_losing_its_descriptor(
    taking_nothing: tuple[Connection, socket.socket], clock: ManualClock
) -> None:
    watch, (connection, client) = ClientWatch(clock=clock), taking_nothing
    watch.add(connection, call(send_idle_s=0.3))
    descriptors = len(os.listdir("/proc/self/fd"))
    look_for(watch, 10, clock)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert is_cut(client)


def test_client_within_its_limit_is_not_cut(
    taking_nothing: tuple[Connection, socket.socket], clock: ManualClock
) -> None:
    watch, (connection, client) = ClientWatch(clock=clock), taking_nothing
    watch.add(connection, call(send_idle_s=30))
    look_for(watch, 10, clock)
    assert not is_cut(client)


def test_stalled_client_of_a_call_that_was_ended_is_cut_sooner(
    taking_nothing: tuple[Connection, socket.socket], clock: ManualClock
) -> None:
    watch, (connection, client) = ClientWatch(clock=clock), taking_nothing
    one = call(send_idle_s=30)
    one.end(CallEnded)
    watch.add(connection, one)
    look_for(watch, 20, clock)
    assert is_cut(client)


def test_watch_looks_by_itself_while_there_are_clients(
    pair: tuple[socket.socket, socket.socket], clock: ManualClock
) -> None:
    watch, one = ClientWatch(clock=clock), call()
    watch.add(Connection(pair[0]), one)
    pair[1].close()
    clock.advance(WATCH_INTERVAL_S)
    assert one.ended


def test_watch_wakes_up_again_after_an_idle_time(
    pair: tuple[socket.socket, socket.socket], clock: ManualClock
) -> None:
    watch, first, second = ClientWatch(clock=clock), call(), call()
    remove = watch.add(Connection(pair[0]), first)
    remove()
    clock.advance(2 * WATCH_INTERVAL_S)
    assert clock.sleeping == 0, "the watch sleeps until there is a client"
    watch.add(Connection(pair[0]), second)
    pair[1].close()
    clock.advance(WATCH_INTERVAL_S)
    assert second.ended
