"""CPU time and memory of a process and everything it started, read from the kernel
without disturbing it."""

from __future__ import annotations

import os
import time
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CPUCLOCK_SCHED = 2  # linux/posix-timers.h: the clock of a process is (~pid << 3) | kind


@dataclass(frozen=True)
class Reading:
    """CPU nanoseconds so far, by process."""

    cpu_ns: dict[int, int]

    def spent_s(self, before: Reading) -> float:
        """CPU seconds since `before`. Raises RuntimeError when a process came or went:
        its time would be lost."""
        if self.cpu_ns.keys() != before.cpu_ns.keys():
            raise RuntimeError(
                f"processes changed from {sorted(before.cpu_ns)} to {sorted(self.cpu_ns)}"
            )
        return sum(self.cpu_ns[pid] - before.cpu_ns[pid] for pid in self.cpu_ns) / 1e9


def process_tree(pid: int) -> list[int]:
    """`pid` and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*"):
        children.setdefault(parent_of(entry), []).append(int(entry.name))
    tree = [pid]
    for member in tree:
        tree.extend(children.get(member, ()))
    return tree


def parent_of(entry: Path) -> int:
    """Parent of a `/proc/<pid>` entry, 0 when it is gone."""
    try:
        stat = (entry / "stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def read_cpu(pid: int) -> Reading:
    """CPU time of the tree under `pid`: user and system, threads that have ended
    included, to the nanosecond."""
    return Reading(
        {
            member: time.clock_gettime_ns((~member << 3) | CPUCLOCK_SCHED)
            for member in process_tree(pid)
        }
    )


def resident_mb(pid: int) -> float:
    """Resident memory of one process in MB (10^6 bytes)."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def shared_mb(pid: int) -> float:
    """Memory of the tree under `pid` in MB (10^6 bytes), as PSS: a page that several processes
    share is counted once, in equal parts. What a process outside the tree shares with it, such as
    libraries, is counted in part only."""
    return sum(_memory_mb(member, "Pss:") for member in process_tree(pid))


def private_mb(pid: int) -> float:
    """Memory that no other process shares with this one, in MB: what would be free without it."""
    return _memory_mb(pid, "Private_Clean:", "Private_Dirty:")


def _memory_mb(pid: int, *names: str) -> float:
    lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) * 1024 / 1e6


def read_busy_s(cores: Set[int]) -> float:
    """CPU seconds that processes have spent on `cores` since the machine started,
    in whole clock ticks."""
    ticks = 0
    for line in (PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name.removeprefix("cpu").isdecimal() and int(name.removeprefix("cpu")) in cores:
            ticks += sum(map(int, fields[:3]))  # user, nice, system
    return ticks / os.sysconf("SC_CLK_TCK")
