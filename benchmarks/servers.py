"""Starts what takes part in a measurement: the scripted upstream, the gateway as in production, the
floor, and its peers: nginx and LiteLLM's proxy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.works import MODELS, RULED_MODEL, TOKEN, GatewayName

ROOT = Path(__file__).resolve().parent.parent
START_S = 30.0
#: LiteLLM's first start compiles all that it imports.
LITELLM_START_S = 120.0
#: Where tests/run.sh puts it: it does not fit beside the gateway's own packages.
LITELLM = Path(sys.prefix) / "second" / "bin" / "litellm"
#: Workers of the gateway that shows what one more costs.
MORE_WORKERS = 3
STOP_S = 15.0
#: Settings of the machine that must not reach the gateway under test.
FOREIGN = (
    "PORT",
    "HOST",
    "TIMEOUT",
    "DEFAULT_MODEL",
    "CHAT_LOGS",
    "LOG_LEVEL",
    "GUNICORN_CMD_ARGS",
    "LISTEN_FDS",
)

GATEWAY_CONFIG = """\
server: {{host: 127.0.0.1, port: {port}}}
auth:
  generate_tokens: ["another-token-0000000000", "{token}"]
  {defaults}
logging: {{dir: "{logs}", level: INFO, access: true}}
"""
#: What records cost is measured by `records.py`.
WITHOUT_RECORDS = "records: {url: null}\n"
#: Limits that are counted and never reached.
WIDE_LIMITS = "defaults: {limits: {requests_per_minute: 1000000000, tokens_per_minute: 1000000000}}"
#: What stands behind each gateway; `{upstream}` is where the scripted one answers.
BEHIND: Mapping[GatewayName, str] = {
    "gateway": 'service: {{base_url: "{upstream}"}}\n',
    "fleet": "upstreams:\n"
    + "".join(
        f'  - {{{{name: box{number}, base_url: "{{upstream}}"}}}}\n' for number in range(1, 9)
    ),
    "shared": """\
upstreams:
  - {{name: box1, base_url: "{upstream}", concurrency: 1000}}
""",
    "workers": 'service: {{base_url: "{upstream}"}}\n',
    "provider": """\
upstreams:
  - {{name: lab, kind: openai, base_url: "{upstream}/v1", models: ["bench:latest"]}}
models:
  ruled: {{target: "lab:bench:latest", options: {{top_p: 0.9}}}}
""",
}

NGINX_CONFIG = """\
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  upstream scripted {{ server {upstream}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://scripted; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Cores:
    """Which cores the measured server has, and which the upstream and the load. The same
    ones when there is one."""

    server: frozenset[int]
    tools: frozenset[int]

    @property
    def are_apart(self) -> bool:
        return not self.server & self.tools


@dataclass(frozen=True)
class Server:
    """A running server; `pid` is the root of its processes."""

    name: str
    pid: int
    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def share_cores(workers: int) -> Cores:
    """One core per worker for the server when that leaves one for the
    tools, else the first core."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        return Cores(frozenset(cores), frozenset(cores))
    count = workers if workers < len(cores) else 1
    return Cores(frozenset(cores[:count]), frozenset(cores[count:]))


def raise_file_limit() -> None:
    """A thousand streams are two thousand sockets; what is started here inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """What is started inside runs on `cores`: set before the start, so that its
    children have it too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ask(port: int, path: str, *, timeout_s: float = 5.0) -> tuple[int, bytes]:
    """Status and body of a GET. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_ready(port: int, path: str) -> bool:
    try:
        return ask(port, path)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_until_ready(
    process: subprocess.Popen[bytes], port: int, path: str, log: Path, start_s: float = START_S
) -> None:
    """Returns when GET `path` is 200. Raises RuntimeError, with the end of the
    log, when it never is."""
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline and process.poll() is None:
        if is_ready(port, path):
            return
        time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} is not ready (GET {path}); its output ends:\n{tail}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the process politely, then its whole group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    *,
    cores: frozenset[int],
    folder: Path,
    ready_path: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    start_s: float = START_S,
) -> Iterator[Server]:
    """The server while it serves; its output goes to `folder/<name>.log`."""
    log = folder / f"{name}.log"
    with log.open("wb") as output, pinned(cores):
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, cwd=cwd, start_new_session=True
        )
    try:
        wait_until_ready(process, port, ready_path, log, start_s)
        yield Server(name, process.pid, port)
    finally:
        stop(process)


@contextlib.contextmanager
def running_upstream(folder: Path, cores: frozenset[int], processes: int = 1) -> Iterator[Server]:
    """The scripted upstream of `fake_ollama.py`."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "benchmarks.fake_ollama",
        "--port",
        str(port),
        "--processes",
        str(processes),
    ]
    with running(
        "upstream", command, port, cores=cores, folder=folder, ready_path="/api/version"
    ) as server:
        yield server


def gateway_environment(folder: Path, port: int, workers: int) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN and not name.startswith("OLLAMA_")
    }
    return kept | {
        "OLLAMA_PROXY_CONFIG": str(folder / "config.yaml"),
        "STATE_DIRECTORY": str(folder / "state"),
        "LOGS_DIRECTORY": str(folder / "logs"),
        "WEB_CONCURRENCY": str(workers),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }


@contextlib.contextmanager
def running_gateway(
    folder: Path,
    cores: frozenset[int],
    upstream: Server,
    *,
    project: Path,
    behind: GatewayName = "gateway",
    workers: int = 1,
    app: str = "wsgi:app",
) -> Iterator[Server]:
    """The gateway of `project` as systemd would start it, with a configuration of
    its own under `folder`."""
    port = free_port()
    folder = folder / behind
    folder.mkdir()
    (folder / "state").mkdir(mode=0o700)
    logs = folder / "logs"
    logs.mkdir()
    url = f"http://127.0.0.1:{upstream.port}"
    defaults = WIDE_LIMITS if behind == "shared" else ""
    text = GATEWAY_CONFIG + BEHIND[behind]
    config = text.format(port=port, token=TOKEN, upstream=url, logs=logs, defaults=defaults)
    if (project / "ollama_proxy" / "records").exists():  # earlier versions do not know the setting
        config += WITHOUT_RECORDS
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "config/gunicorn.conf.py",
        "--bind",
        f"127.0.0.1:{port}",
        app,
    ]
    environment = gateway_environment(folder, port, workers)
    with running(
        "gateway",
        command,
        port,
        cores=cores,
        folder=folder,
        ready_path="/readyz",
        environment=environment,
        cwd=project,
    ) as server:
        yield server


@contextlib.contextmanager
def running_floor(folder: Path, cores: frozenset[int], answer_bytes: int) -> Iterator[Server]:
    """The server of `floor.py`, whose answers have as many bytes, with gunicorn's own settings."""
    port = free_port()
    options = ["-k", "gevent", "--bind", f"127.0.0.1:{port}", "--worker-tmp-dir", "/dev/shm"]
    command = [sys.executable, "-m", "gunicorn", *options, "benchmarks.floor:app"]
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment = kept | {"FLOOR_BYTES": str(answer_bytes), "WEB_CONCURRENCY": "1"}
    with running(
        "floor", command, port, cores=cores, folder=folder, ready_path="/", environment=environment
    ) as server:
        yield server


@contextlib.contextmanager
def running_litellm(
    folder: Path, cores: frozenset[int], upstream: Server
) -> Iterator[Server | None]:
    """LiteLLM's proxy in front of the scripted provider, None if it is not installed."""
    if not LITELLM.exists():
        yield None
        return
    folder = folder / "litellm"
    folder.mkdir()
    common = {
        "api_base": f"http://127.0.0.1:{upstream.port}/v1",
        "api_key": "sk-bench",
        "max_retries": 0,
    }
    names = {name: name for name in MODELS} | {RULED_MODEL: MODELS[0]}
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{model}"} | common}
        for name, model in names.items()
    ]
    config = {
        "model_list": models,
        "general_settings": {"master_key": TOKEN},
        "router_settings": {"num_retries": 0},
    }
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    port = free_port()
    command = [
        str(LITELLM),
        "--config",
        "config.yaml",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--telemetry=False",
    ]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith(("_KEY", "_PROXY"))
    }
    # No list of prices from the network, and no page for administrators; the scripted
    # answers repeat one token.
    quiet = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "DISABLE_ADMIN_UI": "True",
    }
    quiet["REPEATED_STREAMING_CHUNK_LIMIT"] = str(10**9)
    path = "/health/liveliness"
    with running(
        "litellm", command, port, cores=cores, folder=folder, ready_path=path, environment=kept | quiet, cwd=folder,
        start_s=LITELLM_START_S,
    ) as server:  # fmt: skip
        yield server


@contextlib.contextmanager
def running_nginx(folder: Path, cores: frozenset[int], upstream: Server) -> Iterator[Server | None]:
    """nginx as a plain reverse proxy of the upstream, None where it is not installed."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        yield None
        return
    port = free_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    text = NGINX_CONFIG.format(
        user=user, folder=folder, upstream=f"127.0.0.1:{upstream.port}", port=port
    )
    config.write_text(text, encoding="utf-8")
    command = [program, "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
    with running(
        "nginx", command, port, cores=cores, folder=folder, ready_path="/api/version"
    ) as server:
        yield server
