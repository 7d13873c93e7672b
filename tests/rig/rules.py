"""Six rules that hold after every row of the fault table, whatever the row did.

1. The steady probe got a whole answer every time, 99 of 100 in time. 2. Two seconds later
   nothing is in flight, no slot is held, and nothing waits. 3. Descriptors and greenlets are as
   many as before, and the coordinator is as large. 4. No traceback, no 5xx that the row does not
   expect. 5. One line in the access log, with a final state, for each request that was let in. 6.
   Errors have the shape of their API.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.rig import errors
from tests.rig.calls import resident_kib
from tests.rig.coordinator import coordinator_pid, counts
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import ScriptedServer
from tests.rig.gateway import Gateway, group_is_alive
from tests.rig.http_client import Answer
from tests.rig.leaks import LeakCheck, Snapshot, open_descriptors, worker_details
from tests.rig.probe import P99_MS, Sample, p99
from tests.rig.workers import ask_each_worker

#: How soon a gateway is idle after a row, in seconds: as promised in `make long`, which has the
#: machine for itself, and ten times as long elsewhere.
IDLE_AGAIN_S = 2.0 if os.environ.get("BOTH_DOORS") else 20.0
#: Each look takes its time on a busy machine, and finds a health check under way now and then.
LEFT_WITHIN_S = 10.0
FINAL_STATES = {"ok", "client_gone", "upstream_error", "timeout", "refused", "aborted"}
#: No row keeps more idle connections to its upstreams.
_MANY = 1000
#: Idle clients of a gateway are gone by then: nginx keeps its connections for 150 ms in the rig.
_GONE_S = 0.8
#: By how much the coordinator may grow in a row; what it begins with may be no more than the
#: second, in KiB. With the records, whose libraries take 40 MiB, twice as much, and four times the
#: growth: each connection has a cache of pages.
_GROWTH_KIB, _COORDINATOR_KIB = 8 << 10, 64 << 10
#: States of a TCP connection that its server still holds, see tcp(5): ESTABLISHED and CLOSE_WAIT.
_HELD = (1, 8)
#: See netlink(7) and sock_diag(7).
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _DONE, _DUMP = 4, 20, 3, 0x301


@dataclass
class Allowances:
    """What one row may do in spite of the rules, each with its reason where that is not plain."""

    statuses: set[int] = field(default_factory=set)
    probe_errors: str = ""
    no_probe_p99: str = ""
    other_workers: str = ""
    tracebacks: str = ""
    #: Connections of the upstreams to others than the workers of the row.
    other_connections: int = 0


@dataclass
class Noted:
    """The requests of a row by their id."""

    #: How many lines each one must leave.
    admitted: Counter[str] = field(default_factory=Counter)
    #: How many lines each one may leave: nobody knows whether it arrived.
    doubtful: Counter[str] = field(default_factory=Counter)
    #: Statuses of 500 and more that the row's own clients got, with the id.
    failures: list[tuple[int, str]] = field(default_factory=list)


class RowLeaks(LeakCheck):
    """Where workers may be others than at the start, a new one may have as
    much as an old one had."""

    other_workers = False

    def snapshot(self) -> Snapshot:
        """See LeakCheck; clients that are about to be let go, such as nginx after a
        while, are waited for."""
        self._let_clients_go()
        details = worker_details(self.gateway, self.token or "")
        self._let_clients_go()
        return Snapshot(
            {pid: open_descriptors(pid) for pid in self.gateway.worker_pids()}, 0, details
        )

    def _let_clients_go(self) -> None:
        with suppress(AssertionError):
            wait_until(lambda: not clients_connected(self.gateway.port), _GONE_S)

    def problems(self, now: Snapshot) -> list[str]:
        """See LeakCheck."""
        if len(now.descriptors) < self.gateway.workers:
            return [f"only {len(now.descriptors)} of {self.gateway.workers} workers are there"]
        if self.other_workers:
            self.before = self._for_workers(now)
        return super().problems(now)

    def _for_workers(self, now: Snapshot) -> Snapshot:
        most = max(self.before.descriptors.values(), key=len)
        richest = max(self.before.details.values(), key=lambda details: int(details["greenlets"]))
        descriptors = {pid: self.before.descriptors.get(pid, most) for pid in now.descriptors}
        details = {pid: self.before.details.get(pid, richest) for pid in now.details}
        return Snapshot(descriptors, now.upstream_connections, details)


class AccessLog:
    """The access log of a gateway from now on, with what is rotated away."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        #: Bytes that were there before, by the inode of their file.
        self._before = {file.stat().st_ino: file.stat().st_size for file in self._files()}

    def text(self) -> str:
        """All that was written."""
        text = ""
        for path in self._files():
            with suppress(FileNotFoundError), path.open("rb") as file:  # renamed meanwhile
                file.seek(self._before.get(os.fstat(file.fileno()).st_ino, 0))
                text += file.read().decode()
        return text

    def _files(self) -> list[Path]:
        return sorted(self._gateway.logs_directory.glob("access.log*"))


class RowRules:
    """Made when a row begins; `problems` says when it is over which rules it broke."""

    def __init__(
        self,
        gateway: Gateway,
        boxes: Sequence[ScriptedServer],
        token: str,
        probe_ms: float = P99_MS,
    ) -> None:
        """``probe_ms``: 99 of 100 answers to the probe are faster."""
        self._probe_ms = probe_ms
        self.allowed = Allowances()
        self.noted = Noted()
        self._gateway = gateway
        self._boxes = boxes
        self._token = token
        self._leaks = RowLeaks(gateway, token=token, idle=_MANY)
        self._coordinator = coordinator_pid(gateway)
        self._coordinator_kib = resident_kib(self._coordinator) if self._coordinator else 0
        self._output_from = len(gateway.output())
        self._log = AccessLog(gateway)
        self._began = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def problems(self, samples: Sequence[Sample]) -> list[str]:
        """Every rule that is broken, in words."""
        found = self.probe_problems(samples)
        if self.has_ended():
            found += ["workers outlive their master"] if group_is_alive(self._gateway.pid) else []
        else:
            found += self._live_problems()
        lines = self.access_lines()
        return (
            found + self.output_problems() + self.status_problems(lines) + self.line_problems(lines)
        )

    def has_ended(self) -> bool:
        """Whether the row has ended the gateway."""
        return self._gateway.process is None or self._gateway.process.poll() is not None

    def access_lines(self, containing: str = "") -> list[dict[str, Any]]:
        """The lines of the access log since the row began; only those that contain a text."""
        # Not splitlines(): a name in a line may hold letters that it takes for the end of one. The
        # last line may be half.
        *lines, _ = self._log.text().split("\n")
        return [json.loads(line) for line in lines if containing in line]

    def _live_problems(self) -> list[str]:
        self._leaks.other_workers = bool(self.allowed.other_workers)
        leaks = partial(self._leaks.verify, LEFT_WITHIN_S)
        checks = (
            self._settle,
            self._give_back,
            leaks,
            self._measure_coordinator,
            self._wait_for_logs,
        )
        found = []
        for check in checks:
            try:
                check()
            except AssertionError as error:
                found.append(str(error))
        return found

    def probe_problems(self, samples: Sequence[Sample]) -> list[str]:
        """Rule 1."""
        found = []
        bad = [sample for sample in samples if sample.problem]
        if bad and not self.allowed.probe_errors:
            found.append(
                f"{len(bad)} of {len(samples)} probes failed, first at "
                f"{bad[0].door}: {bad[0].problem}"
            )
        if p99(samples) >= self._probe_ms and not self.allowed.no_probe_p99:
            worst = max(
                (sample for sample in samples if sample.counts), key=lambda sample: sample.ms
            )
            found.append(f"the probe's p99 is {p99(samples):.0f} ms; worst: {worst}")
        return found

    def _settle(self) -> None:
        """Rule 2. Each worker must be idle once: a health check that one of them makes
        meanwhile is no request left."""
        looks: dict[int, Mapping[str, Any]] = {}
        idle: set[int] = set()

        def is_idle() -> bool:
            looks.clear()
            looks.update(worker_details(self._gateway, self._token))
            idle.update(pid for pid, each in looks.items() if not any(_counts(each).values()))
            return looks.keys() <= idle and not self._surplus(looks)

        def busy() -> str:
            found = [
                f"worker {pid} has {count} {what}"
                for pid in looks.keys() - idle
                for what, count in _counts(looks[pid]).items()
                if count
            ]
            return "not idle: " + "; ".join(found + self._surplus(looks))

        wait_until(is_idle, IDLE_AGAIN_S, busy)

    def _give_back(self) -> None:
        """The other half of rule 2: slots and queue, of all workers."""
        wait_until(
            lambda: counts(self._gateway) == (0, 0),
            IDLE_AGAIN_S,
            lambda: "{} requests hold a slot, {} wait".format(*counts(self._gateway)),
        )

    def _measure_coordinator(self) -> None:
        """The other half of rule 3."""
        pid = coordinator_pid(self._gateway)
        if not pid:
            return
        has_records = any(self._gateway.state_directory.glob("usage/*"))
        most = (
            self._coordinator_kib + (_GROWTH_KIB << 2 * has_records)
            if pid == self._coordinator
            else _COORDINATOR_KIB << has_records
        )
        now = resident_kib(pid)
        assert now <= most, f"the coordinator has {now} KiB, at most {most} may be"

    def _surplus(self, looks: Mapping[int, Mapping[str, Any]]) -> list[str]:
        """Connections that an upstream holds and no worker knows of."""
        known = sum(sum(each["upstream_connections"].values()) for each in looks.values())
        connections = (
            sum(box.connections_open for box in self._boxes) - self.allowed.other_connections
        )
        return (
            [f"upstreams have {connections} open connections, the workers {known}"]
            if connections > known
            else []
        )

    def _wait_for_logs(self) -> None:
        """Lines of a worker are written in their order: when a later one is there,
        all of the row's are."""
        marker = "marker-" + secrets.token_hex(8)
        answers = ask_each_worker(
            self._gateway, "/readyz", token=self._token, **{"X-Request-Id": marker}
        )
        wait_until(
            lambda: self._log.text().count(marker) == len(answers),
            5,
            "the access log stays behind",
        )

    def output_problems(self) -> list[str]:
        """Rule 4, first half."""
        text = self._gateway.output()[self._output_from :]
        at = min((place for sign in _TRACES if (place := text.find(sign)) >= 0), default=-1)
        return (
            []
            if at < 0 or self.allowed.tracebacks
            else [f"traceback: ...{text[max(0, at - 300) : at + 3000]}"]
        )

    def status_problems(self, lines: Sequence[Mapping[str, Any]]) -> list[str]:
        """Rule 4, second half: what the clients got and what the log says."""
        found = [
            f"{status} for {name}"
            for status, name in self.noted.failures
            if status not in self.allowed.statuses
        ]
        for line in lines:
            failed = line["status"] >= 500 and line["status"] not in self.allowed.statuses
            excused = line["path"] == "/readyz" or (
                line["token"] == "probe" and self.allowed.probe_errors
            )
            if failed and not excused and line["time"] >= self._began:
                found.append(f"unexpected {line['status']}: {json.dumps(line)}")
        return found[:5]

    def line_problems(self, lines: Sequence[Mapping[str, Any]]) -> list[str]:
        """Rule 5."""
        seen = Counter(line["id"] for line in lines)
        known = self.noted.admitted.keys() | self.noted.doubtful.keys()
        found = []
        for name in known:
            least = self.noted.admitted[name]
            most = least + self.noted.doubtful[name]
            if not least <= seen[name] <= most:
                found.append(
                    f"{seen[name]} access lines for {name}, not "
                    f"{least if least == most else (least, most)}"
                )
        states = {line["id"]: line["state"] for line in lines if line["id"] in known}
        found += [
            f"{name} ended as {state!r}"
            for name, state in states.items()
            if state not in FINAL_STATES
        ]
        return found[:5]


def check_shape(answer: Answer, path: str, dialect: str | None = None) -> None:
    """Rule 6: an error is JSON in the shape of the API that `path` belongs to (or of `dialect`)."""
    errors.assert_error(answer, dialect or errors.dialect_of(api_path(path)), answer.status)


def api_path(path: str) -> str:
    """A path without what may stand before it: /k/<token>, /openai."""
    bare = path.partition("?")[0]
    if bare.startswith("/k/"):
        bare = "/" + bare.removeprefix("/k/").partition("/")[2]
    return bare.removeprefix("/openai") if bare.startswith("/openai/") else bare


def clients_connected(port: int) -> int:
    """How many connections the server that listens on a port of 127.0.0.1 holds.

    Asked by sock_diag(7): /proc/net/tcp has thousands of lines of connections that have ended.
    """
    states = sum(1 << state for state in _HELD)
    wanted = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, states)
    wanted += struct.pack("!H46x", port)
    head = struct.pack("=IHHII", 16 + len(wanted), _SOCK_DIAG_BY_FAMILY, _DUMP, 0, 0)
    count = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(head + wanted)
        while True:
            data = kernel.recv(1 << 16)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                if kind != _SOCK_DIAG_BY_FAMILY:
                    assert kind == _DONE, f"the kernel answers {data!r}"
                    return count
                count += 1
                data = data[size + 3 & ~3 :]


_TRACES = ("Traceback (most recent call last)", '"traceback":')


def _counts(details: Mapping[str, Any]) -> dict[str, int]:
    return {
        "requests in flight": details["in_flight"],
        "watched clients": details["watched"],
        "active upstream connections": details["upstream_connections"]["active"],
        "places at upstreams": sum(
            each.get("in_flight", 0) for each in details["upstreams"].values()
        ),
    }
