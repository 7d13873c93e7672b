"""config/gunicorn.conf.py in front of a tiny application: how the server starts, reloads
and refuses to start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rig import http_client
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.gateway import PROJECT, WORKER_SOCKETS, FailedStart, Gateway, free_port

CONF = Path(__file__).resolve().parents[2] / "config" / "gunicorn.conf.py"
TOKENS = "auth:\n  generate_tokens: [team-token-for-tests]\n"
BROKEN = TOKENS + "surver: {}\n"
TINY = """\
import json, os
from gevent import monkey

def app(environ, start_response):
    seen = {key: value for key, value in environ.items() if isinstance(value, str)}
    patched = all(map(monkey.is_module_patched, ("ssl", "socket", "threading", "queue")))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "patched": patched, "environ": seen,
                        "scheme": environ["wsgi.url_scheme"]}).encode()]
"""
#: does what systemd does: a listening socket as descriptor 3, and the two
#: variables that announce it
ACTIVATE = """\
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listener.fileno(), 3)
if listener.fileno() != 3:
    listener.close()
else:
    listener.set_inheritable(True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What makes a `Gateway` serve the tiny application with the shipped server settings."""
    directory = tmp_path_factory.mktemp("tiny")
    (directory / "tiny.py").write_text(TINY)
    return {"app": "tiny:app", "cwd": directory, "gunicorn_config": CONF}


#: As shipped: no worker listens on a socket of its own.
ENV = {"GRACEFUL_TIMEOUT": "5", WORKER_SOCKETS: ""}


def start(tiny: dict[str, Any]) -> Gateway:
    return Gateway(TOKENS, env=ENV, **tiny)


#: Read only.
server = module_fixture(lambda tiny: start(tiny))
#: For tests that edit its configuration.
edited_server = function_fixture(lambda tiny: start(tiny))


class Activated(Gateway):
    """A gateway that is given its socket, at `self.port`; its settings name
    another one, `unused_port`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.unused_port = free_port()
        env = {"PORT": str(self.unused_port), **ENV}
        super().__init__(*args, env=env, own_interpreter=True, **options)
        self._launcher = [sys.executable, "-c", ACTIVATE, str(self.port)]


def ask(server: Gateway, headers: http_client.HeaderItems = ()) -> dict[str, Any]:
    answer: dict[str, Any] = http_client.request(server.url, headers=headers).json()
    return answer


def listening_sockets(pids: set[int]) -> set[str]:
    """Local addresses and paths that these processes listen on, as the kernel shows them."""
    inodes = set()
    for link in (link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()):
        match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link) if link.is_symlink() else "")
        inodes |= {match[1]} if match else set()
    tcp = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {row[1] for row in tcp if row[3] == "0A" and row[9] in inodes} | {
        "unix " + " ".join(row[7:]) for row in unix if row[3] == "00010000" and row[6] in inodes
    }


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def hang_up(server: Gateway) -> None:
    """SIGHUP, and wait until every worker is a new one."""
    before = server.worker_pids()
    os.kill(server.pid, signal.SIGHUP)
    wait_until(
        lambda: len(after := server.worker_pids()) == server.workers and not after & before,
        10,
        server.output,
    )


def test_two_workers_answer_with_everything_patched(server: Gateway) -> None:
    seen: dict[int, bool] = {}

    def both_have_answered() -> bool:
        answer = ask(server)
        seen[answer["pid"]] = answer["patched"]
        return set(seen) == server.worker_pids()

    wait_until(both_have_answered, 10, lambda: f"only {seen} of {server.worker_pids()} answered")
    assert list(seen.values()) == [True, True]


def test_nothing_listens_but_the_service_itself(server: Gateway) -> None:
    wait_until(lambda: ask(server)["pid"], 5)
    assert listening_sockets({server.pid, *server.worker_pids()}) == {f"0100007F:{server.port:04X}"}


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "X_Api_Key", "Remote_User"])
def test_headers_with_underscores_change_nothing(server: Gateway, name: str) -> None:
    environ = ask(server, {name: "/smuggled"})["environ"]
    assert "/smuggled" not in environ.values()
    assert environ["PATH_INFO"] == "/"


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ({"X-Forwarded-Proto": "https"}, "https"),
        ({"X-Forwarded-Proto": "http"}, "http"),
        ({"X-Forwarded-Ssl": "on"}, "http"),
        ({"X-Forwarded-Proto": "http", "X-Forwarded-Ssl": "on"}, "http"),
    ],
)
def test_scheme_is_taken_from_one_header_only(
    server: Gateway, headers: dict[str, str], scheme: str
) -> None:
    assert ask(server, headers)["scheme"] == scheme


def test_reload_with_a_broken_configuration_keeps_serving(edited_server: Gateway) -> None:
    edited_server.write_config(BROKEN)
    hang_up(edited_server)
    assert ask(edited_server)["pid"] in edited_server.worker_pids()
    assert "surver" in edited_server.output()
    assert "the last good one stays" in edited_server.output()


def test_reload_after_the_file_was_mended_complains_no_more(edited_server: Gateway) -> None:
    edited_server.write_config(BROKEN)
    hang_up(edited_server)
    complaints = edited_server.output().count("the last good one stays")
    edited_server.write_config(TOKENS)
    hang_up(edited_server)
    assert ask(edited_server)["pid"] in edited_server.worker_pids()
    assert edited_server.output().count("the last good one stays") == complaints


def test_inherited_socket_is_used_and_survives_a_reload(tiny: dict[str, Any]) -> None:
    with Activated(TOKENS, **tiny) as server:
        for _ in range(2):
            assert ask(server)["environ"]["SERVER_PORT"] == str(server.port)
            assert listening_sockets({server.pid, *server.worker_pids()}) == {
                f"0100007F:{server.port:04X}"
            }
            assert is_refused(server.unused_port)
            server.write_config(f"{TOKENS}server: {{port: {free_port()}}}\n")
            hang_up(server)


def test_address_in_the_configuration_file_is_used(tiny: dict[str, Any]) -> None:
    port = free_port()
    config = f'{TOKENS}server: {{host: "127.0.0.1", port: {port}}}\n'
    gateway = Gateway(config, workers=1, env={"PORT": "", "HOST": ""}, **tiny)
    gateway.url = f"http://127.0.0.1:{port}"
    with gateway:
        assert ask(gateway)["environ"]["SERVER_PORT"] == str(port)


def failed_start(config: str, tiny: dict[str, Any], **env: str) -> FailedStart:
    return Gateway.start_expecting_failure(config, env=env, **tiny)


def test_broken_configuration_ends_the_start_with_one_clear_text(tiny: dict[str, Any]) -> None:
    port = free_port()
    failed = failed_start(BROKEN, tiny, PORT=str(port))
    assert failed.exit_code == os.EX_CONFIG
    assert "config.yaml:3" in failed.output
    assert "surver" in failed.output
    assert "Traceback" not in failed.output
    assert "Listening at" not in failed.output
    assert is_refused(port)


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("WEB_CONCURRENCY", "0", 1),
        *(("GRACEFUL_TIMEOUT", value, 2) for value in ("1", "-1", "many", "1.5")),
    ],
)
def test_senseless_number_in_the_environment_is_named(
    tiny: dict[str, Any], name: str, value: str, least: int
) -> None:
    failed = failed_start(TOKENS, tiny, **{name: value})
    assert failed.exit_code == os.EX_CONFIG
    assert (
        failed.output.strip()
        == f"ollama-proxy: {name} must be a whole number, {least} or more, not {value!r}"
    )


FORKED = """
import os, queue, runpy, signal, sys, types
conf = runpy.run_path("config/gunicorn.conf.py")
told = queue.SimpleQueue()
signal.signal(signal.SIGTERM, lambda number, frame: told.put_nowait(number))
for number in map(int, sys.argv[1:]):
    told.put_nowait(number)
conf["post_fork"](types.SimpleNamespace(SIG_QUEUE=told), None)
print("loads", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("lost")
"""


@pytest.mark.parametrize(
    ("told", "said", "code"), [("", "loads", -15), ("1 28", "loads", -15), ("1 15", "", 0)]
)
def test_a_worker_that_is_told_to_end_while_it_starts_ends(
    tmp_path: Path, told: str, said: str, code: int
) -> None:
    (tmp_path / "config.yaml").write_text(TOKENS)
    environ = {
        **os.environ,
        "OLLAMA_PROXY_CONFIG": str(tmp_path / "config.yaml"),
        "STATE_DIRECTORY": str(tmp_path),
    }
    command = [sys.executable, "-c", FORKED, *told.split()]
    done = subprocess.run(
        command, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (said, code), done.stderr
