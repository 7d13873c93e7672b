"""Settings of gunicorn, the server. What belongs to the gateway itself is in config.yaml.

gunicorn runs this file at the start and again, in the same process, on every SIGHUP.
"""

from gevent import monkey

monkey.patch_all()  # before anything imports socket, ssl or threading and keeps what it saw

import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

# With --chdir gunicorn changes directory only after this file; behind everything else, so
# that nothing is shadowed.
ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
if (ROOT / "config/config.yaml").exists():
    # Otherwise a --chdir would have the workers read another file than the
    # one that is checked here.
    os.environ.setdefault("OLLAMA_PROXY_CONFIG", str(ROOT / "config/config.yaml"))

from ollama_proxy.errors import ConfigError  # noqa: E402
from ollama_proxy.gateway import capacity  # noqa: E402
from ollama_proxy.server.process_state import PROCESS  # noqa: E402
from ollama_proxy.server.startup import check_start, preload  # noqa: E402

#: Carries "<pid of the master> <connections> <host>:<port>" from the start to
#: later runs of this file.
STARTED_WITH = "OLLAMA_PROXY_STARTED_WITH"


def from_settings() -> tuple[int, str]:
    """Connections of a worker and `host:port` from the gateway's settings, decided at the start for
    as long as the process lives.

    At the start a configuration that can't be used ends the process, before it listens anywhere. On
    SIGHUP it is only reported. The address stays in either case: for another one gunicorn would
    close the socket that systemd gave it.
    """
    master, _, started_with = os.environ.get(STARTED_WITH, "").partition(" ")
    reloading = master == str(os.getpid())
    try:
        settings = check_start(reloading=reloading)
        server = settings.server
        if settings.metrics.enabled:
            PROCESS.metrics_directory.open(memory_directory())
    except ConfigError as error:
        outcome = "the last good one stays" if reloading else "not started"
        sys.stderr.write(f"ollama-proxy: the configuration can't be used, {outcome}:\n{error}\n")
        if not reloading:
            raise SystemExit(os.EX_CONFIG) from error
    if not reloading:
        capacity.raise_descriptor_limit()
        host = f"[{server.host}]" if ":" in server.host else server.host
        started_with = f"{capacity.connections(server.max_connections)} {host}:{server.port}"
        os.environ[STARTED_WITH] = f"{os.getpid()} {started_with}"
    else:
        PROCESS.lifecycle.replace()
    connections, _, address = started_with.partition(" ")
    return int(connections), address


#: Signals that end a worker.
ENDS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


def whole_number(name: str, default: int, least: int) -> int:
    """The number in the environment variable `name`; anything else ends the
    process with one line."""
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal() or int(text) < least:
        sys.stderr.write(
            f"ollama-proxy: {name} must be a whole number, {least} or more, not {text!r}\n"
        )
        raise SystemExit(os.EX_CONFIG)
    return int(text)


def memory_directory() -> str | None:
    """A directory in memory: on a slow disk, heartbeats and counts could block a worker."""
    candidates = (os.environ.get("RUNTIME_DIRECTORY"), "/dev/shm")
    return next((path for path in candidates if path and os.access(path, os.W_OK | os.X_OK)), None)


def pre_fork(server: Any, worker: object) -> None:
    """The worker gets an application of the configuration as it is now, in memory that it
    shares with its master."""
    preload()


def post_fork(server: Any, worker: object) -> None:
    """A worker that is told to end before it listens to that does so at once. gunicorn would
    lose the word: until a worker has its own handlers it has its master's, which only put
    signals into a queue."""
    told = set()
    for number in ENDS:
        signal.signal(number, signal.SIG_DFL)
    while not server.SIG_QUEUE.empty():
        told.add(server.SIG_QUEUE.get_nowait())
    if told & ENDS:
        sys.exit(0)


def worker_exit(server: object, worker: object) -> None:
    """What a leaving worker still holds reaches the log files."""
    PROCESS.log_writers.flush()


def child_exit(server: Any, worker: object) -> None:
    """What a worker has counted stays when it has ended."""
    PROCESS.metrics_directory.retire(server.WORKERS.keys())


def on_exit(server: object) -> None:
    """The master ends, after its workers."""
    PROCESS.metrics_directory.close()


# An inherited socket (LISTEN_FDS, as systemd passes it) is used instead of this address.
worker_connections, bind = from_settings()
backlog = 2048

workers = whole_number("WEB_CONCURRENCY", 2, 1)
# Among so many a worker without a coordinator shares slots and limits.
os.environ["WEB_CONCURRENCY"] = str(workers)
worker_class = "ollama_proxy.server.worker.Worker"  # gevent, with a connection loop of its own
worker_tmp_dir = memory_directory()
preload_app = False  # pre_fork builds the application, and wsgi.py starts it in each worker
max_requests = 0  # recycling would cut long streams

# A heartbeat of the worker's event loop, not a limit for requests.
timeout = whole_number("WORKER_TIMEOUT", 60, 2)
# How long a restart waits for answers in progress; the unit's TimeoutStopSec is 30 s more. Until
# it is over nobody answers new calls, so it is shorter than the longest stream that
# `timeouts.total_s` allows.
graceful_timeout = whole_number("GRACEFUL_TIMEOUT", 300, 2)
# Longer than nginx keeps idle connections (10 s); also the limit for reading the headers of a call.
keepalive = 15

# nginx, on the same machine, says by X-Forwarded-Proto whether the client used https. The worker
# believes nothing else from headers, and drops those with an underscore, as nginx does.
forwarded_allow_ips = "127.0.0.1,::1"

# As much as one header buffer of the nginx sample. The whole head is limited by
# ollama_proxy/server/incoming.py.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

accesslog = None  # the gateway writes its own, without tokens
errorlog = "-"
logger_class = "ollama_proxy.server.worker.ServerLog"  # tracebacks without the texts of exceptions
control_socket_disable = True  # nothing may listen but the service itself
