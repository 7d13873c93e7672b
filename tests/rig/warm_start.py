"""Starts gunicorn as a copy of a process that has already imported everything: otherwise a start
costs 1.1 s of CPU, nearly all of it for imports, and the suite has hundreds.

The copy does what `python -m gunicorn` does: it has its session, environment, directory and
descriptors, and no thread and no event loop before gunicorn makes them. Only the modules of
libraries and of the gateway are there already, without `server.process_state`, whose shared
memory each gateway needs for itself.
"""

from __future__ import annotations

import _socket
import array
import atexit
import gc
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_LONGEST = 1 << 20


class Started:
    """A process that `WarmStart` has started, with what a gateway needs of `Popen`."""

    def __init__(self, pid: int, ended: socket.socket) -> None:
        self.pid = pid
        #: The exit code; negative, the signal that ended it; None as long as it runs.
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """Return `returncode` as it is now."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self._read()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("gunicorn", timeout or 0)
            self._read()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _read(self) -> None:
        code = self._ended.recv(64)
        self._ended.close()
        assert code, (
            f"process {self.pid} is no longer waited for: the one that started it was killed"
        )
        self.returncode = int(code)


class WarmStart:
    """The process that is copied; it ends with the process that made it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(PROJECT)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env=environ,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.close)

    def start(
        self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: int
    ) -> Started:
        """Run `python -m gunicorn` with these arguments; `output` is its stdout and stderr."""
        # Messages, not a stream: a process that ends at once has its id and its exit code waiting.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            what = json.dumps([list(arguments), str(cwd), dict(env)]).encode()
            socket.send_fds(self._control, [what], [output, theirs.fileno()])
        return Started(int(ours.recv(64)), ours)

    def close(self) -> None:
        """End the process; the copies keep running."""
        self._control.close()
        self._process.wait()


@cache
def warm_start() -> WarmStart:
    """Return the process that this test process copies."""
    return WarmStart()


def _serve(control: _socket.socket) -> None:
    from gevent import get_hub, monkey

    monkey.patch_all()
    import gunicorn.app.wsgiapp
    import gunicorn.workers.base_async  # noqa: F401

    import ollama_proxy.admin
    import ollama_proxy.dialects
    import ollama_proxy.gateway
    import ollama_proxy.telemetry
    import ollama_proxy.upstreams  # noqa: F401

    assert "ollama_proxy.server.process_state" not in sys.modules
    # urllib3 made an event loop when it tried a socket; a copy would share its descriptor.
    get_hub().destroy(destroy_loop=True)
    gc.collect()
    gc.freeze()
    fork, waitpid = monkey.get_original("os", ["fork", "waitpid"])
    while True:
        message, ancillary, _, _ = control.recvmsg(_LONGEST, _socket.CMSG_SPACE(8))
        with suppress(ChildProcessError):
            while waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            return
        descriptors = array.array("i", ancillary[0][2])
        output, ended = descriptors
        # Between this process and gunicorn's there is one that waits for its end.
        if fork() == 0:
            pid = fork()
            if pid == 0:
                control.close()
                os.close(ended)
                _become_gunicorn(*json.loads(message), output)
            os.write(ended, b"%d" % pid)
            os.close(output)
            status = waitpid(pid, 0)[1]
            with suppress(BrokenPipeError):  # the test process has ended
                os.write(ended, b"%d" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def _become_gunicorn(
    arguments: Sequence[str], cwd: str, env: Mapping[str, str], output: int
) -> None:
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(cwd)
    sys.path[0] = cwd
    sys.argv[1:] = arguments
    runpy.run_module("gunicorn", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(_socket.socket(fileno=int(sys.argv[1])))
