"""A network of its own for a thread and all that it starts, with nothing in it but 127.0.0.1."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

#: <sched.h>, <linux/sockios.h>, <linux/if.h>
_CLONE_NEWNET, _SIOCSIFFLAGS, _IFF_UP = 0x40000000, 0x8914, 1


@contextmanager
def loopback_only() -> Iterator[None]:
    """Within it the calling thread has no other network. Raises PermissionError if
    the caller is not root."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as outside:
        _check(libc.unshare(_CLONE_NEWNET))
        try:
            with socket.socket() as any_socket:
                fcntl.ioctl(
                    any_socket, _SIOCSIFFLAGS, struct.pack("16sH", b"lo", _IFF_UP) + bytes(16)
                )
            yield
        finally:
            _check(libc.setns(outside.fileno(), _CLONE_NEWNET))


def _check(failed: int) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
