"""A command in the sandbox that the systemd unit describes, as far as a process
can put itself into one.

Used as a program, by root: ``unshare --mount python sandbox.py <command>``, see LAUNCHER. Every
mount becomes read-only but the directories that systemd would name in the environment, all
capabilities and the right to get new ones are gone, memory can't become executable, and the command
takes this process's place.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

#: <sys/prctl.h>
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 24, 38, 65
_MDWE_REFUSE_EXEC_GAIN = 1
#: what the kernel offers as files, and what systemd leaves alone
_KERNEL = ("/proc", "/sys", "/dev")

#: in which the writable directories are
_WRITABLE = ("STATE_DIRECTORY", "LOGS_DIRECTORY", "RUNTIME_DIRECTORY")
#: the command to put in front of another one
LAUNCHER = ("unshare", "--mount", sys.executable, "-I", "-S", __file__)


def enter(writable: list[str]) -> None:
    """Close the door behind this process. Raises OSError or CalledProcessError where the
    system does not let it."""
    _mount("--make-rprivate", "/")
    for directory in writable:
        _mount("--bind", directory, directory)
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in dict.fromkeys(points):
        if point not in writable and not point.startswith(_KERNEL):
            _mount("-o", "remount,bind,ro", point)
    os.umask(0o077)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(
        option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


if __name__ == "__main__":
    enter([os.environ[name] for name in _WRITABLE])
    os.execvp(sys.argv[1], sys.argv[1:])
