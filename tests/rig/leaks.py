"""What a finished test may not leave behind: descriptors, upstream connections, requests
in flight, greenlets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import ScriptedServer
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer
from tests.rig.workers import exchange

Details = dict[str, Any]

#: A worker that has just been forked, on a busy machine, answers late what it has taken.
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Snapshot:
    """The state of all workers at one moment; ``details`` is empty when no token was given."""

    descriptors: dict[int, dict[int, str]]
    upstream_connections: int
    details: dict[int, Details]


class LeakCheck:
    """Compares a gateway (and its upstream) with what it was when the check was made.

    Make it after a first request, so that what a worker opens once and keeps is part of the start.
    With a token of the gateway each worker is asked for its own numbers as well. ``idle`` is how
    many pooled upstream connections may stay.
    """

    def __init__(
        self,
        gateway: Gateway,
        upstream: ScriptedServer | None = None,
        *,
        token: str | None = None,
        idle: int = 4,
    ) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.token = token
        self.idle = idle
        self.before = self.snapshot()

    def snapshot(self) -> Snapshot:
        """The state now. Raises AssertionError when a token was given and not every worker
        answers with details."""
        details = worker_details(self.gateway, self.token) if self.token else {}
        descriptors = {pid: open_descriptors(pid) for pid in self.gateway.worker_pids()}
        return Snapshot(
            descriptors, self.upstream.connections_open if self.upstream else 0, details
        )

    def verify(self, seconds: float = 5) -> None:
        """Wait until nothing is left over. Raises AssertionError that names every leak."""
        problems: list[str] = []

        def is_clean() -> bool:
            problems[:] = self.problems(self.snapshot())
            return not problems

        wait_until(is_clean, seconds, lambda: "leaked: " + "; ".join(problems))

    def problems(self, now: Snapshot) -> list[str]:
        """What differs from the start and should not, in words."""
        found = []
        if now.descriptors.keys() != self.before.descriptors.keys():
            found.append(
                f"workers were {sorted(self.before.descriptors)}, are {sorted(now.descriptors)}"
            )
        for pid in now.descriptors.keys() & self.before.descriptors.keys():
            found += self._descriptor_problems(pid, now)
        for pid, details in now.details.items():
            found += self._detail_problems(pid, details)
        most = self.before.upstream_connections + self.idle
        if now.upstream_connections > most:
            found.append(
                f"{now.upstream_connections} upstream connections are open, at most {most} may be"
            )
        return found

    def _descriptor_problems(self, pid: int, now: Snapshot) -> list[str]:
        before, after = self.before.descriptors[pid], now.descriptors[pid]
        # By kind: a connection that is about to be closed must not hide a file that stays open.
        more = {"sockets": self._more_idle(pid, now), "files": 0}
        problems = []
        for kind, allowance in more.items():
            allowed, count = _count(kind, before) + allowance, _count(kind, after)
            if count > allowed:
                new = [f"{fd}={to}" for fd, to in sorted(after.items()) if before.get(fd) != to]
                problems.append(
                    f"worker {pid} has {count} descriptors of {kind}, at most {allowed} may be open;"
                    f" new: {', '.join(new)}"
                )
        return problems

    def _more_idle(self, pid: int, now: Snapshot) -> int:
        """By how many pooled connections a worker may have grown: as many as it says,
        never more than allowed."""
        if pid not in now.details or pid not in self.before.details:
            return self.idle
        grown = _idle(now.details[pid]) - _idle(self.before.details[pid])
        return min(self.idle, grown)

    def _detail_problems(self, pid: int, details: Details) -> list[str]:
        counted = {
            "requests in flight": details["in_flight"],
            "watched clients": details["watched"],
            "active upstream connections": details["upstream_connections"]["active"],
        }
        found = [f"worker {pid} has {count} {what}" for what, count in counted.items() if count]
        before = self.before.details.get(pid)
        if before is not None and details["greenlets"] > before["greenlets"]:
            found.append(
                f"worker {pid} has {details['greenlets']} greenlets, had {before['greenlets']}"
            )
        return found


def _count(kind: str, descriptors: dict[int, str]) -> int:
    """How many of these descriptors are sockets, or files; a worker has one file of the spool,
    which it opens when it needs it."""
    targets = [target for target in descriptors.values() if "/usage/" not in target]
    sockets = sum(target.startswith("socket:") for target in targets)
    return sockets if kind == "sockets" else len(targets) - sockets


@contextmanager
def no_leaks(
    gateway: Gateway,
    upstream: ScriptedServer | None = None,
    *,
    token: str | None = None,
    idle: int = 4,
    seconds: float = 5,
) -> Iterator[LeakCheck]:
    """Fail unless what the block opened is closed within ``seconds`` after it. An error of
    the block goes first."""
    check = LeakCheck(gateway, upstream, token=token, idle=idle)
    yield check
    check.verify(seconds)


def open_descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of a process and what each one is; none when it has ended."""
    found = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def worker_details(gateway: Gateway, token: str) -> dict[int, Details]:
    """What each worker says of itself on /readyz, by its process id, and whether it is ready; a
    worker that ends meanwhile is left out. Raises AssertionError when an answer has no details."""
    found = {}
    for pid in gateway.worker_pids():
        with suppress(ConnectionError), gateway.connect_to(pid) as sock:
            answer = exchange(sock, "GET", "/readyz", headers=bearer(token))
            details = answer.json().get("details")
            assert details, f"/readyz has no details for this token: {answer.text[:500]}"
            found[pid] = details | {"is_ready": answer.status == 200}
    return found


def _idle(details: Details) -> int:
    idle: int = details["upstream_connections"]["idle"]
    return idle
