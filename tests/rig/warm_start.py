"""Starts gunicorn and the commands of the gateway as copies of processes that have already
imported everything: otherwise a start costs 1 s of CPU, nearly all of it for imports, and the
suite has hundreds.

The copy does what `python -m` does: it has its environment, directory, descriptors and group of
processes, and no thread and no event loop before it makes them. Only the modules of libraries and
of the gateway are there already, and what compiles its routes. What such a gateway starts is a
copy, too, in the gateway's group.
"""

from __future__ import annotations

import _socket
import array
import atexit
import fcntl
import gc
import importlib
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

PROJECT = Path(__file__).resolve().parents[2]
GATEWAY, COMMANDS = "gunicorn", "ollama_proxy.cli"
#: What they import before they are copied.
_IMPORTED = {
    GATEWAY: (
        "gunicorn.app.wsgiapp",
        "gunicorn.workers.base_async",
        "ollama_proxy.server.startup",
        "tests.rig.compiled_once",
    ),
    COMMANDS: (
        "ollama_proxy.cli.commands",
        "ollama_proxy.cli.keys",
        "ollama_proxy.cli.records",
        "ollama_proxy.cli.usage",
        "ollama_proxy.records.opened",
        "alembic.config",
        "gevent.monkey",
        "gevent.queue",
        "gevent.threadpool",
    ),
}
#: Variables that Python reads when it starts: a copy can't follow them.
READ_BY_PYTHON = re.compile("PYTHON|LC_|LANG")
_LONGEST = 1 << 20


class Started:
    """A process that was started as a copy, with what its users need of `Popen`."""

    def __init__(self, reports: _socket.socket) -> None:
        #: The exit code; negative, the signal that ended it; None as long as it runs.
        self.returncode: int | None = None
        self._reports = reports
        self._pid = 0

    @property
    def pid(self) -> int:
        """Return its process id, once it is known."""
        if not self._pid:
            self._pid = self._read(None)
        return self._pid

    def poll(self) -> int | None:
        """Return `returncode` as it is now."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        if not self._pid:
            self._pid = self._read(timeout)
        if self.returncode is None:
            self.returncode = self._read(timeout)
            self._reports.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _read(self, timeout: float | None) -> int:
        # Not select(): in a gateway, that is gevent's, and runs its event loop.
        self._reports.settimeout(timeout)
        try:
            number = self._reports.recv(64)
        except (BlockingIOError, TimeoutError):
            raise subprocess.TimeoutExpired("python", timeout or 0) from None
        assert number, f"the process that has started {self._pid or 'this one'} was killed"
        return int(number)


class Starter:
    """Asks a process to make copies of itself."""

    def __init__(self, control: _socket.socket) -> None:
        self.control = control

    def start(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        files: Sequence[int],
        group: int = 0,
    ) -> Started:
        """Run the module with these arguments. `files`: its stdin, stdout and stderr, and what
        else it needs; `group`: that it joins, 0 for one of its own."""
        # Messages, not a stream: a process that ends at once has its id and its exit code waiting.
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        what = json.dumps([list(arguments), str(cwd), dict(env), group]).encode()
        descriptors = array.array("i", [theirs.fileno(), *files])
        self.control.sendmsg([what], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
        theirs.close()
        return Started(ours)


class WarmStart:
    """The processes that are copied; they end with the process that made them."""

    def __init__(self) -> None:
        self._gateways, theirs = _control()
        self._commands, commands = _control()
        self._process = _start_copied(GATEWAY, theirs, commands)
        atexit.register(self.close)

    def start_gateway(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        output: int,
        inherited: Sequence[int] = (),
    ) -> Started:
        """Run `python -m gunicorn` with these arguments; `output` is its stdout and stderr.
        `inherited`: a listening socket that it gets as systemd passes one."""
        with open(os.devnull, "rb") as nothing:
            files = [nothing.fileno(), output, output, self._commands.control.fileno(), *inherited]
            return self._gateways.start(arguments, cwd=cwd, env=env, files=files)

    def run_command(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: str,
        seconds: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m ollama_proxy.cli` to its end. Raises subprocess.TimeoutExpired."""
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            given.write(stdin.encode())
            given.seek(0)
            files = [given.fileno(), output.fileno(), errors.fileno()]
            code = self._commands.start(arguments, cwd=cwd, env=env, files=files).wait(seconds)
            return subprocess.CompletedProcess(arguments, code, _text(output), _text(errors))

    def start_coordinator(self, environ: Mapping[str, str]) -> Started:
        """Run `python -m ollama_proxy.cli coordinator`; see `coordination.start_coordinator`."""
        with open(os.devnull, "r+b") as nothing:
            files = [nothing.fileno()] * 3
            return self._commands.start(["coordinator"], cwd=PROJECT, env=environ, files=files)

    def close(self) -> None:
        """End the processes; the copies keep running."""
        for each in (self._gateways, self._commands):
            with suppress(OSError):
                each.control.shutdown(_socket.SHUT_RDWR)
            each.control.close()
        self._process.wait()


@cache
def warm_start() -> WarmStart:
    """Return the processes that this test process copies."""
    return WarmStart()


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode()


def _control() -> tuple[Starter, _socket.socket]:
    """Return what asks for copies, and the socket of the process that is asked."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return Starter(ours), theirs


def _start_copied(module: str, *controls: _socket.socket) -> subprocess.Popen[bytes]:
    descriptors = [each.fileno() for each in controls]
    environ = {name: text for name, text in os.environ.items() if not READ_BY_PYTHON.match(name)}
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, module, *map(str, descriptors)],
        env={**environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        # Only processes of one session can be in one group.
        start_new_session=module == GATEWAY,
    )
    for each in controls:
        each.close()
    return process


def _serve(module: str, control: _socket.socket) -> None:
    if module == GATEWAY:
        from gevent import get_hub, monkey

        monkey.patch_all()
    for name in _IMPORTED[module]:
        importlib.import_module(name)
    if module == GATEWAY:
        _compile_routes()
        # urllib3 made an event loop when it tried a socket; a copy would share its descriptor.
        get_hub().destroy(destroy_loop=True)
    gc.collect()
    gc.freeze()
    while True:
        message, ancillary, _, _ = control.recvmsg(_LONGEST, _socket.CMSG_SPACE(32))
        with suppress(ChildProcessError):
            while _waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            return
        files = array.array("i", ancillary[0][2]).tolist()
        # Between this process and its copy there is one that waits for its end.
        if _fork() == 0:
            _run_copy(module, *json.loads(message), control, *files)
        for descriptor in files:
            os.close(descriptor)


def _compile_routes() -> None:
    from ollama_proxy.server.app import create_app
    from ollama_proxy.settings.schema import Settings
    from tests.rig.compiled_once import compile_url_builders_once

    compile_url_builders_once()
    create_app(Settings())


def _run_copy(
    module: str,
    arguments: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    group: int,
    control: _socket.socket,
    reports: int,
    *files: int,
) -> None:
    pid = _fork()
    if pid == 0:
        control.close()
        os.close(reports)
        try:
            os.setpgid(0, group)
        except PermissionError:  # the group has ended meanwhile
            os._exit(1)
        os.environ.clear()
        os.environ.update(env)
        # First out of the way of their new numbers: those of a process, and systemd's first one.
        moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in files]
        for descriptor in files:
            os.close(descriptor)
        for number, descriptor in enumerate(moved[:3]):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for descriptor in moved[4:]:
            os.dup2(descriptor, 3)
            os.close(descriptor)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        time.tzset()
        os.chdir(cwd)
        sys.path[0] = cwd
        sys.argv[1:] = arguments
        if module == GATEWAY:
            _prepare_gateway(Starter(_socket.socket(fileno=moved[3])))
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit()
    for descriptor in files:
        os.close(descriptor)
    with suppress(ConnectionError):  # who has asked has ended
        os.write(reports, b"%d" % pid)
        status = _waitpid(pid, 0)[1]
        os.write(reports, b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _prepare_gateway(starter: Starter) -> None:
    """Give this gateway a state of its own, and let it start commands as copies, in its group of
    processes."""
    from ollama_proxy.server import process_state, startup

    # Its shared memory, for one.
    process_state.PROCESS.__init__()  # type: ignore[misc]
    atexit.register(process_state.PROCESS.log_writers.flush)
    # The modules are frozen already; a further collection would take as long as all the rest.
    startup.gc = SimpleNamespace(unfreeze=int, collect=int, freeze=gc.freeze)  # type: ignore[attr-defined]

    def start(arguments: Sequence[str], environ: Mapping[str, str], output: int) -> Started:
        with open(os.devnull, "rb") as nothing:
            files = [nothing.fileno(), output, output]
            return starter.start(
                arguments, cwd=Path.cwd(), env=environ, files=files, group=os.getpgrp()
            )

    def run(
        command: list[str], environ: Mapping[str, str], seconds: float
    ) -> tuple[int | None, str]:
        with tempfile.TemporaryFile() as output:
            started = start(command[3:], environ, output.fileno())
            try:
                return started.wait(seconds), _text(output)
            except subprocess.TimeoutExpired:
                started.kill()
                return None, ""

    def start_coordinator(environ: Mapping[str, str]) -> Started:
        with open(os.devnull, "wb") as nothing:
            return start(["coordinator"], environ, nothing.fileno())

    startup.start_coordinator, startup._run_apart = start_coordinator, run


if __name__ == "__main__":
    # Before gevent takes their place.
    _fork, _waitpid = os.fork, os.waitpid
    module, control, *others = sys.argv[1:]
    for each in others:
        _start_copied(COMMANDS, _socket.socket(fileno=int(each)))
    _serve(module, _socket.socket(fileno=int(control)))
