"""The gateway as a process of its own: real gunicorn, the shipped configuration, always ended."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml

from tests.rig import http_client
from tests.rig.deadline import wait_until
from tests.rig.warm_start import PROJECT, READ_BY_PYTHON, Started, warm_start

SHIPPED_CONFIG = "config/gunicorn.conf.py"
#: A deadline, not a promise: on a busy machine the imports alone take seconds.
START_S = 60.0
#: Names the directory of the sockets that single workers have.
WORKER_SOCKETS = "OLLAMA_PROXY_WORKER_SOCKETS"
#: What the gateways of tests run with that are not about records.
WITHOUT_RECORDS = {"OLLAMA_PROXY__RECORDS__URL": "null"}
#: what a developer's shell may hold and would change the gateway under test
_FOREIGN = re.compile(
    r"PORT|HOST|TIMEOUT|DEFAULT_MODEL|CHAT_LOGS|LOG_LEVEL|WEB_CONCURRENCY|GRACEFUL_TIMEOUT|OLLAMA_.*|GUNICORN_.*"
    r"|.*_API_KEY|.*_DIRECTORY|LISTEN_(FDS|PID|FDNAMES)|NOTIFY_SOCKET|(https?|all|no)_proxy",
    re.IGNORECASE,
)
#: what systemd does for a unit with a socket: it is descriptor 3, and two variables announce
#: it to this very process
_INHERIT = """\
import os, sys
given = int(sys.argv[1])
if given != 3:
    os.dup2(given, 3)
    os.close(given)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class FailedStart(NamedTuple):
    """How a start that was meant to fail went."""

    exit_code: int
    output: str
    seconds: float


class Gateway:
    """A running gateway: ``with Gateway(config) as gateway`` gives one that answers /livez
    and has all its workers.

    ``config`` is YAML text or a mapping. ``app``, ``gunicorn_config`` and ``cwd`` make it
    possible to start another application in the same way. ``launcher`` is a command that puts the
    gateway in its own place (exec) when it has set limits. ``listener`` is a listening socket of
    the caller's that the gateway inherits: it stays open, and takes connections, from one start
    to the next. ``own_interpreter``: it starts as it does in use, not as a copy of a process that
    has already imported everything. ``records``: usage is recorded, as ``config`` says or by
    default; otherwise it is not, because that takes a further process for each gateway. Files live
    in a temporary directory that is gone after `close`.
    """

    def __init__(
        self,
        config: str | Mapping[str, Any],
        *,
        workers: int = 2,
        env: Mapping[str, str] | None = None,
        app: str = "wsgi:app",
        gunicorn_config: str | Path = SHIPPED_CONFIG,
        cwd: str | Path = PROJECT,
        launcher: Sequence[str] = (),
        listener: socket.socket | None = None,
        own_interpreter: bool = False,
        records: bool = False,
    ) -> None:
        self.workers = workers
        self.port = listener.getsockname()[1] if listener else free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | Started | None = None
        self._files = tempfile.TemporaryDirectory(prefix="gateway-")
        self.directory = Path(self._files.name)
        self.config_path = self.directory / "config.yaml"
        self.state_directory = self.directory / "state"
        self.logs_directory = self.directory / "logs"
        self._output_path = self.directory / "output.txt"
        self._last_output = ""
        for directory in (self.state_directory, self.logs_directory):
            directory.mkdir(mode=0o700)
        self.write_config(config)
        self.token = _first_token(config)
        self._inherited = [listener.fileno()] if listener else []
        self._arguments = ["-c", str(gunicorn_config), app]
        self._cwd = Path(cwd)
        inherit = [sys.executable, "-I", "-S", "-c", _INHERIT, *map(str, self._inherited)]
        self._launcher = [*launcher, *(inherit if listener else [])]
        has_database = isinstance(config, Mapping) and (config.get("records") or {}).get("url")
        assert records or not has_database, "a gateway with a database needs records=True"
        extra = ({} if records else WITHOUT_RECORDS) | dict(env or {})
        self._env = self._environment(extra)
        self._own_interpreter = (
            own_interpreter
            or bool(launcher)
            # Another one may not patch the standard library, as the shared imports do.
            or PROJECT / gunicorn_config != PROJECT / SHIPPED_CONFIG
            or any(READ_BY_PYTHON.match(name) for name in extra)
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @classmethod
    def start_expecting_failure(
        cls, config: str | Mapping[str, Any], *, seconds: float = START_S, **options: Any
    ) -> FailedStart:
        """Start it and return how it ended. Raises AssertionError when it still
        runs after ``seconds``."""
        gateway = cls(config, **options)
        began = time.monotonic()
        try:
            process = gateway._launch()
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise AssertionError(
                    f"still running after {seconds:g} s:\n{gateway.output()}"
                ) from None
            return FailedStart(code, gateway.output(), time.monotonic() - began)
        finally:
            gateway.close()

    @property
    def pid(self) -> int:
        """The process id of gunicorn's master."""
        assert self.process is not None, "the gateway has not been started"
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it is alive. Raises AssertionError with its output when
        it does not become so."""
        process = self._launch()
        wait_until(
            lambda: process.poll() is not None or self._is_up(), START_S, self._why("did not start")
        )
        if process.poll() is not None:
            raise AssertionError(
                self._why(f"ended with code {process.returncode} while starting")()
            )

    def write_config(self, config: str | Mapping[str, Any]) -> None:
        """Replace the configuration file in one step, as an editor or a deployment does."""
        text = config if isinstance(config, str) else _as_yaml(config)
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.rename(self.config_path)

    def ask(
        self,
        path: str,
        body: http_client.Body = None,
        *,
        method: str = "",
        token: str | None = "",
        timeout: float = 20,
        **headers: str,
    ) -> http_client.Answer:
        """One exchange on a connection of its own: POST with a body, else GET, unless
        `method` says otherwise. `token`: the first one of the configuration, unless another
        is named; None: without one."""
        sent = {} if token is None else http_client.bearer(token or self.token)
        method = method or ("GET" if body is None else "POST")
        return http_client.request(self.url, method, path, body, sent | headers, timeout=timeout)

    def request(
        self,
        method: str = "GET",
        path: str = "/",
        body: http_client.Body = None,
        headers: http_client.HeaderItems = (),
        *,
        timeout: float = 20,
    ) -> http_client.Answer:
        """One exchange with these headers and no others, on a connection of its own."""
        return http_client.request(self.url, method, path, body, headers, timeout=timeout)

    def open(
        self,
        path: str,
        body: http_client.Body = None,
        *,
        method: str = "",
        token: str = "",
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> http_client.Stream:
        """The same for an answer that is read piece by piece; `options` are those of
        `open_stream`."""
        method = method or ("GET" if body is None else "POST")
        sent = http_client.bearer(token or self.token) | dict(headers or {})
        return http_client.open_stream(self.url, method, path, body, sent, **options)

    def worker_pids(self) -> set[int]:
        """The processes that gunicorn has forked and that are alive."""
        return child_pids(self.pid)

    def url_of(self, pid: int) -> str:
        """An address that leads to this worker only, for `http_client`."""
        return f"unix://127.0.0.1{self._socket_of(pid)}"

    def connect_to(self, pid: int) -> socket.socket:
        """A connection to this worker. Raises ConnectionError if it takes none any more."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        path = self._socket_of(pid)

        def has_answered() -> bool:
            nonlocal problem
            problem = sock.connect_ex(path)
            # There is no such file before the worker listens.
            return problem != errno.ENOENT or pid not in self.worker_pids()

        problem = 0
        wait_until(has_answered, START_S, f"worker {pid} does not listen")
        if problem:
            sock.close()
            raise ConnectionError(f"worker {pid} has ended")
        return sock

    def output(self) -> str:
        """What the process has written to stdout and stderr so far; also readable after `close`."""
        if self._output_path.exists():
            self._last_output = self._output_path.read_text(encoding="utf-8", errors="replace")
        return self._last_output

    def log_lines(
        self, name: str, *, at_least: int = 0, seconds: float = 5
    ) -> list[dict[str, Any]]:
        """The JSON lines of ``<name>.log``; waits until there are ``at_least`` so many."""
        path = self.logs_directory / f"{name}.log"

        def read() -> list[str]:
            # Not splitlines(): a name may hold letters that it takes for the end of a line.
            # The last one may be half.
            *lines, _ = (path.read_text(encoding="utf-8") if path.exists() else "").split("\n")
            return lines

        if at_least:
            wait_until(
                lambda: len(read()) >= at_least, seconds, lambda: f"{path.name} has only {read()}"
            )
        return [json.loads(line) for line in read()]

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of the event log that report this event."""
        return [line for line in self.log_lines("events") if line["event"] == event]

    def stop(self, timeout: float = 15) -> int:
        """Ask it to end (TERM) and return its exit code. Raises AssertionError when it
        has not ended in time."""
        assert self.process is not None, "the gateway has not been started"
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._why(f"still running {timeout:g} s after TERM")()) from None

    def kill(self) -> None:
        """End master and workers at once. Nothing happens when they are gone already."""
        if self.process is None:
            return

        def has_ended() -> bool:
            with suppress(ProcessLookupError):  # the whole group has ended
                os.killpg(self.pid, signal.SIGKILL)
            return not group_is_alive(self.pid)

        has_ended()
        self.process.wait()
        # A command that was started just before joins the group a moment later.
        wait_until(has_ended, 5, "workers outlived the kill")

    def close(self) -> None:
        """Kill what still runs and remove the files; the output stays readable."""
        try:
            self.kill()
        finally:
            self.output()
            self._files.cleanup()

    def _socket_of(self, pid: int) -> str:
        return f"{self._env[WORKER_SOCKETS]}/worker-{pid}.sock"

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not _FOREIGN.fullmatch(name)
        }
        return {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "OLLAMA_PROXY_CONFIG": str(self.config_path),
            "STATE_DIRECTORY": str(self.state_directory),
            "LOGS_DIRECTORY": str(self.logs_directory),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(self.workers),
            WORKER_SOCKETS: str(self.directory),
            **extra,
        }

    def _launch(self) -> subprocess.Popen[bytes] | Started:
        with self._output_path.open("ab") as output:
            if not self._own_interpreter:
                self.process = warm_start().start_gateway(
                    self._arguments,
                    cwd=self._cwd,
                    env=self._env,
                    output=output.fileno(),
                    inherited=self._inherited,
                )
                return self.process
            self.process = subprocess.Popen(
                [*self._launcher, sys.executable, "-m", "gunicorn", *self._arguments],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=self._inherited,
                start_new_session=True,
            )
        return self.process

    def _is_up(self) -> bool:
        try:
            alive = http_client.request(self.url, path="/livez", timeout=2).status == 200
        except OSError:
            return False
        return alive and len(self.worker_pids()) >= self.workers

    def _why(self, what: str) -> Callable[[], str]:
        return lambda: f"the gateway {what}; its output:\n{self.output()}"


def _first_token(config: str | Mapping[str, Any]) -> str:
    """The first token of a configuration; "" if it is text, or has none."""
    tokens = [] if isinstance(config, str) else config.get("auth", {}).get("generate_tokens") or []
    first = tokens[0] if tokens else ""
    return str(first.get("token") or "") if isinstance(first, Mapping) else str(first)


class _Spelled(yaml.SafeDumper):
    """Writes values out that are in several places, where YAML would refer to the first."""

    def ignore_aliases(self, data: object) -> bool:
        """Always."""
        return True


def _as_yaml(config: Mapping[str, Any]) -> str:
    return yaml.dump(dict(config), Dumper=_Spelled, sort_keys=False, allow_unicode=True)


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, from below the range from which the kernel gives
    ports to connections."""
    # Not by the seed of the tests: then a test that runs twice at once would draw the same ports.
    for port in random.SystemRandom().sample(range(20000, 32000), 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) and _can_bind(port):
                return port
    raise AssertionError("no free port found between 20000 and 32000")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def child_pids(pid: int) -> set[int]:
    """The living children of a process."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return set()  # it has ended
    return {child for child in map(int, listed.split()) if _state(child) not in "ZX"}


def group_is_alive(group: int) -> bool:
    """Whether any process of a group still runs."""
    return any(of == group and state not in "ZX" for _, (state, _, of) in _processes())


def _state(pid: int) -> str:
    """The state of a process, as /proc has it; X if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _processes() -> list[tuple[int, tuple[str, int, int]]]:
    """Every process with its state, parent and group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, group, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            found.append((int(entry.name), (state, int(parent), int(group))))
    return found
