"""Links keep the order of frames whatever the other side does, and end for both sides."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest
from gevent import socket

from ollama_proxy.coordination.frames import Frame, encode_frame
from ollama_proxy.coordination.link import Link, connect, socket_path
from ollama_proxy.version import VERSION


def make_pair() -> tuple[Link, socket.socket]:
    ours, theirs = socket.socketpair()
    return Link(ours), theirs


def test_frames_for_a_slow_reader_wait_in_order() -> None:
    link, theirs = make_pair()
    sent = [{"number": number, "text": "x" * 100_000} for number in range(50)]
    for frame in sent:
        link.send(frame)
    got: list[Frame] = []
    reader = Link(theirs)
    receiving = gevent.spawn(reader.receive, got.append)
    with gevent.Timeout(10):
        while len(got) < len(sent):
            gevent.sleep(0.01)
    assert got == sent
    link.close()
    receiving.join(timeout=5)
    assert receiving.successful() and reader.is_closed


def test_other_side_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_proxy.coordination.link.MAX_UNSENT_BYTES", 1 << 20)
    link, theirs = make_pair()
    for _ in range(50):
        link.send({"text": "x" * 100_000})
    assert link.is_closed
    theirs.close()


def test_invalid_frames_are_an_error_and_end_the_link() -> None:
    link, theirs = make_pair()
    theirs.sendall(b"\0\0\0\x02[]")
    with pytest.raises(ValueError):
        link.receive(lambda _: None)
    assert link.is_closed
    theirs.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", None], ids=["ends", "other", "hangs"]
)
def test_only_a_coordinator_is_connected_to(
    answer: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ollama_proxy.coordination.link.CONNECT_S", 0.2)
    assert connect(tmp_path) is None
    with socket.socket(socket.AF_UNIX) as listener:
        with socket_path(tmp_path) as path:
            listener.bind(path)
        listener.listen(1)

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                if answer is None:
                    gevent.sleep(1)
                else:
                    connection.recv(100)
                    connection.sendall(answer)

        accepting = gevent.spawn(accept)
        assert connect(tmp_path) is None
        accepting.kill()


@pytest.mark.parametrize(
    ("version", "is_used"), [(VERSION, True), ("10.0.0", True), ("0.0.9", False), (None, False)]
)
def test_coordinator_of_an_older_version_is_asked_to_leave(
    version: str | None, is_used: bool, tmp_path: Path
) -> None:
    received: list[Frame] = []
    with socket.socket(socket.AF_UNIX) as listener:
        with socket_path(tmp_path) as path:
            listener.bind(path)
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            link = Link(connection)
            link.send({"op": "welcome"} | ({"version": version} if version else {}))
            link.send({"op": "managed"})  # what is pushed to all workers belongs to what follows
            link.receive(
                lambda frame: (received.append(frame), frame["op"] == "leave" and link.close())[0]
            )

        serving = gevent.spawn(serve)
        link = connect(tmp_path)
        assert (link is not None) == is_used
        if link:
            pushed: list[Frame] = []
            reading = gevent.spawn(link.receive, pushed.append)
            with gevent.Timeout(5):
                while not pushed:
                    gevent.sleep(0.01)
            link.close()
            reading.join(timeout=5)
        serving.join(timeout=5)
        assert serving.successful()
    assert [frame["op"] for frame in received] == (["hello"] if is_used else ["hello", "leave"])


def test_socket_may_lie_in_a_directory_with_a_long_name(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        with socket_path(directory) as path:
            listener.bind(path)
        listener.listen(1)

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(encode_frame({"op": "welcome", "version": VERSION}))
                connection.recv(100)

        greeting = gevent.spawn(greet)
        link = connect(directory)
        assert link is not None
        link.close()
        greeting.join(timeout=5)
