"""The process of the coordinator: one per directory, there as long as workers are."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import gevent
import pytest

from ollama_proxy.coordination import service
from ollama_proxy.coordination.coordinator import Coordinator
from ollama_proxy.coordination.link import SOCKET_NAME, Link, connect
from ollama_proxy.coordination.service import (
    LOCK_NAME,
    MARK,
    SETTLE_S,
    run_coordinator,
    start_coordinator,
)
from tests.rig.deadline import wait_until
from tests.rig.gateway import WITHOUT_RECORDS

LONGEST_S = 20.0


def start_in(directory: Path) -> tuple[subprocess.Popen[bytes], Link]:
    process = start_coordinator(os.environ | WITHOUT_RECORDS | {"STATE_DIRECTORY": str(directory)})
    links: list[Link | None] = []

    def is_there() -> bool:
        links.append(connect(directory))
        return links[-1] is not None

    wait_until(is_there)
    assert links[-1] is not None
    return process, links[-1]


def test_second_coordinator_ends_at_once(tmp_path: Path) -> None:
    process, link = start_in(tmp_path)
    assert (
        start_coordinator(os.environ | WITHOUT_RECORDS | {"STATE_DIRECTORY": str(tmp_path)}).wait(
            LONGEST_S
        )
        == 0
    )
    assert run_coordinator(tmp_path) is False
    for name in (SOCKET_NAME, LOCK_NAME):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    process.kill()
    process.wait()
    link.close()


def test_coordinator_ends_when_no_worker_is_left(tmp_path: Path) -> None:
    assert run_coordinator(tmp_path, idle_s=0.1) is True
    assert not (tmp_path / SOCKET_NAME).exists()
    assert (tmp_path / LOCK_NAME).read_bytes() == b""


def test_service_manager_that_ends_everything_does_not_take_it_from_workers(tmp_path: Path) -> None:
    process, link = start_in(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    gevent.sleep(0.5)
    assert process.poll() is None
    link.close()
    assert process.wait(LONGEST_S) == 0


def test_socket_of_a_killed_coordinator_is_replaced(tmp_path: Path) -> None:
    process, link = start_in(tmp_path)
    process.kill()
    process.wait()
    link.close()
    assert (tmp_path / LOCK_NAME).read_bytes() == MARK
    process, link = start_in(tmp_path)
    process.send_signal(signal.SIGTERM)
    link.close()
    assert process.wait(LONGEST_S) == 0


@pytest.mark.parametrize(("left", "settle_s"), [(MARK, SETTLE_S), (b"", 0.0)])
def test_successor_of_a_killed_one_waits_for_what_workers_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes, settle_s: float
) -> None:
    waits: list[float] = []

    def build(*, settle_s: float, resettle_s: float) -> Coordinator:
        waits.append(settle_s)
        return Coordinator(settle_s=settle_s, resettle_s=resettle_s)

    monkeypatch.setattr(service, "Coordinator", build)
    (tmp_path / LOCK_NAME).write_bytes(left)
    assert run_coordinator(tmp_path, idle_s=0.0) is True
    assert waits == [settle_s]


def test_worker_of_another_version_does_not_end_it(tmp_path: Path) -> None:
    process, link = start_in(tmp_path)
    link.send({"op": "acquire"})
    link.receive(lambda _: None)
    other = connect(tmp_path)
    assert other is not None
    other.close()
    process.kill()
    process.wait()
