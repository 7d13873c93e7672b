"""Process and host, the end and the next start: streams that finish, streams that do not, and
a restart under load."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.reliability.load import KeptClient, Load, ask
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import Rig, Row, allowed, nginx_decides
from tests.rig.calls import CHAT_LINE, FACES, TEXT_LINE, Face, is_well_ended, last_error
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Lines, WaitFor
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import group_is_alive
from tests.rig.http_client import Stream, request
from tests.rig.nginx import Nginx

pytestmark = pytest.mark.slow

WORDS = [f" word{n:02}" for n in range(12)]
GONE_S = allowed(3)


class Caller(NamedTuple):
    """One client in the middle of its answer."""

    id: str
    face: Face
    stream: Stream

    def is_whole(self, body: bytes) -> bool:
        """Whether every word came, in order, then the good end."""
        said = re.findall(rb"word(\d\d)", body)[: len(WORDS)]
        return said == [b"%02d" % n for n in range(len(WORDS))] and is_well_ended(body, self.face)


def speak(upstream: FaultUpstream, go_on: threading.Event) -> None:
    """A first word, a wait for the test, then the others: for every face."""
    done = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": len(WORDS)}
    for path, line in (("/api/chat", CHAT_LINE), ("/api/generate", TEXT_LINE)):
        first, *others = [{**line, **_part(path, word)} for word in WORDS]
        last = {**line, **_part(path, ""), **done}
        upstream.script(path, [Lines([first]), WaitFor(go_on, 60), Lines([*others, last])])


def _part(path: str, word: str) -> dict[str, object]:
    return (
        {"response": word}
        if path == "/api/generate"
        else {"message": {"role": "assistant", "content": word}}
    )


def callers(row: Row, count: int, open_ones: ExitStack) -> list[Caller]:
    """So many clients, of every face in turn, each of which has heard the first word."""
    started = []
    for face in islice(cycle(FACES.values()), count):
        id = "drain-" + secrets.token_hex(8)
        stream = row.open(face.path, {**face.body, "stream": True}, id=id)
        started.append(Caller(id, face, open_ones.enter_context(stream)))
    return started


def readiness(row: Row) -> str:
    """What somebody learns who asks now, on a new connection."""
    try:
        answer = request(row.url, path="/readyz", timeout=5)
    except OSError as error:
        return type(error).__name__
    document = answer.json()
    return str(document.get("reason") or document.get("status") or answer.status)


def terminate(row: Row) -> float:
    """Ask it to end; returns the monotonic moment."""
    row.allow_probe_errors("the service is stopped")
    row.allow(502, 503)
    os.kill(row.gateway.pid, signal.SIGTERM)
    return time.monotonic()


def end_of(row: Row, seconds: float) -> int:
    """The exit code, once it has ended."""
    assert row.gateway.process is not None
    return row.gateway.process.wait(seconds)


rig = module_fixture(lambda: Rig(workers=2))


@nginx_decides
def test_p1_streams_are_finished_before_the_end(row: Row) -> None:
    go_on, heard = threading.Event(), [readiness(row)]
    speak(row.upstream, go_on)
    with ExitStack() as open_ones:
        started = callers(row, 20, open_ones)
        began = terminate(row)
        while heard[-1] != "draining" and time.monotonic() < began + 20:
            heard.append(readiness(row))
        assert heard[-1] == "draining"
        row.measured("readiness says so after", time.monotonic() - began, "s")
        wait_until(
            lambda: readiness(row) in ("ConnectionRefusedError", "502"),
            5,
            lambda: f"still {readiness(row)}",
        )
        go_on.set()
        bodies = [each.stream.read_all(10) for each in started]
        read_at = time.monotonic()
        assert [each.is_whole(body) for each, body in zip(started, bodies, strict=True)] == [
            True
        ] * 20, bodies
        assert all(each.stream.complete for each in started)
        assert end_of(row, 10) == 0
        row.measured("ended after the last stream", time.monotonic() - read_at, "s")
    assert set(heard[:-1]) == {"ready"}
    assert [row.record(each.id)["state"] for each in started] == ["ok"] * 20


LIMIT_S = 6
#: So long before its limit at most it may tell the clients, so that it has said and
#: written everything by then.
TERMINATION_GRACE_S = 4


def test_p2_stream_that_outlives_the_limit_is_cut_visibly(door: str) -> None:
    with (
        Rig(env={"GRACEFUL_TIMEOUT": str(LIMIT_S)}) as rig,
        rig.row(door) as row,
        ExitStack() as open_ones,
    ):
        speak(row.upstream, threading.Event())
        started = callers(row, len(FACES), open_ones)
        began = terminate(row)
        for each in started:
            body = each.stream.read_all(LIMIT_S + GONE_S)
            assert b"word00" in body
            assert last_error(body, each.face)
        told_after = time.monotonic() - began
        assert told_after > LIMIT_S - TERMINATION_GRACE_S
        row.measured("the clients are told after", told_after, "s")
        end_of(row, LIMIT_S + GONE_S + 5)
        gone_after = time.monotonic() - began
        assert gone_after < LIMIT_S + GONE_S
        row.measured(f"gone with a limit of {LIMIT_S} s after", gone_after, "s")
        assert [row.record(each.id)["state"] for each in started] == ["aborted"] * len(started)


#: Restarts, requests on new connections, and clients of each kind.
RESTARTS, REQUESTS, LOOPS = (3, 2500, 4) if BOTH_DOORS else (1, 300, 4)


@nginx_decides
def test_p3_restart_under_load_loses_nobody(door: str, tmp_path: Path) -> None:
    """nginx keeps its connections to the gateway as long as the shipped site says; the
    rig's own lets go sooner."""
    with ExitStack() as running:
        listener = running.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        rig = running.enter_context(Rig(workers=2, listener=listener))
        row = running.enter_context(rig.row(door))
        row.allow_no_probe_p99("new connections wait for the next start")
        row.allow_other_workers("they are restarted")
        nginx = running.enter_context(Nginx(tmp_path, f"127.0.0.1:{rig.gateway.port}"))
        door_is = nginx if door == "nginx" else rig.gateway
        clients = [running.enter_context(closing(KeptClient(door_is.port))) for _ in range(LOOPS)]
        with (
            Load(*[lambda: ask(door_is.url, "/livez")] * LOOPS) as load,
            Load(*[each.ask for each in clients]) as kept,
        ):
            for number in range(1, RESTARTS + 1):
                load.wait_for(number * REQUESTS // (RESTARTS + 1), 30)
                assert rig.gateway.stop() == 0
                rig.gateway.start()
            load.wait_for(REQUESTS, 30)
        failed = load.total + kept.total - load.outcomes[200] - kept.outcomes[200]
        row.measured("requests on new connections", load.total, "")
        row.measured("chats on kept ones", kept.total, "")
        row.measured("of them failed", failed, "")
        row.measured("slowest", max(load.slowest_s, kept.slowest_s), "s")
        assert load.outcomes.keys() | kept.outcomes.keys() == {200}, failures(nginx)


def failures(nginx: Nginx) -> list[str]:
    """What nginx has to say of requests that went wrong."""
    lines = nginx.access_log.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if json.loads(line)["status"] >= 500][:10]


def test_orphaned_workers_finish_their_streams_and_leave(rig: Rig) -> None:
    """Of the issue, in no row: the master is killed, and nobody is left behind."""
    with rig.row("gateway") as row, ExitStack() as open_ones:
        row.allow_probe_errors("the service is killed")
        row.allow(502, 503)
        go_on = threading.Event()
        speak(row.upstream, go_on)
        started, master = callers(row, 6, open_ones), rig.gateway.pid
        os.kill(master, signal.SIGKILL)
        end_of(row, 5)
        wait_until(
            lambda: readiness(row) == "ConnectionRefusedError",
            10,
            "somebody still takes connections",
        )
        go_on.set()
        assert all(each.is_whole(each.stream.read_all(10)) for each in started)
        wait_until(lambda: not group_is_alive(master), 10, "workers live on without their master")
