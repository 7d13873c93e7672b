"""Which process of this machine listens at a port, and its environment."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")

#: Columns of /proc/net/tcp: the port in hexadecimal digits, the state, of which 0A is
#: LISTEN, and the inode.
_ROW = re.compile(r"^ *\d+: [0-9A-F]+:([0-9A-F]{4}) \S+ 0A (?:\S+ +){5}(\d+)", re.MULTILINE)


def find_listener(port: int) -> int | None:
    """The id of the process that listens at a port; None if it can't be seen from here."""
    inodes: set[str] = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            rows = _ROW.findall((PROC / "net" / name).read_text("ascii"))
            inodes |= {inode for listed, inode in rows if int(listed, 16) == port}
    for descriptor in PROC.glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if (found := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))) and found[
                1
            ] in inodes:
                return int(descriptor.parts[2])
    return None


def read_environment(pid: int) -> dict[str, str] | None:
    """The environment with which a process was started; None if this user may not see it."""
    try:
        data = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    pairs = [item.partition(b"=") for item in data.split(b"\0") if item]
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, _, value in pairs
    }
