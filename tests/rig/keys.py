"""Keys of a running gateway, made and withdrawn as an operator does it: on the command line."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from contextlib import ExitStack, closing
from typing import Any

from ollama_proxy.errors import TokenRevoked
from tests.rig.calls import SSE_FACES, TOKEN, Face, last_error
from tests.rig.command_line import run_cli
from tests.rig.coordinator import workers_connected
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, bearer, open_stream
from tests.rig.leaks import worker_details
from tests.rig.tiers import allowed

#: The promise: seconds until every worker follows a change.
FOLLOWED_S = 2.0
#: With this scope, /readyz names the worker.
OPERATOR = ("--scopes", "read,generate,manage")


def run_token_command(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``ollama-proxy token ...`` in the installation of a gateway."""
    return run_command(gateway, "token", *arguments)


def run_command(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``ollama-proxy ...`` in the installation of a gateway."""
    environ = {
        "OLLAMA_PROXY_CONFIG": str(gateway.config_path),
        "STATE_DIRECTORY": str(gateway.state_directory),
    }
    return run_cli(*arguments, env=environ)


def change_key(gateway: Gateway, *arguments: str) -> str:
    """What a command prints. Raises AssertionError if it fails."""
    done = run_token_command(gateway, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def create_key(gateway: Gateway, name: str, *options: str) -> str:
    """The token of a new key."""
    made: dict[str, Any] = json.loads(change_key(gateway, "create", name, "--json", *options))
    return str(made["token"])


def wait_for_records(gateway: Gateway) -> None:
    """Until SQLite has its tables."""
    file = gateway.state_directory / "records.db"

    def has_tables() -> bool:
        if not file.exists():
            return False
        with closing(sqlite3.connect(file)) as database:
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
        return ("audit",) in tables

    wait_until(has_tables, 30, "there is no database")


def wait_for_followers(gateway: Gateway) -> None:
    """Until any kind of database has its tables, and every worker hears of changes."""
    wait_until(
        lambda: run_token_command(gateway, "list").returncode == 0, 30, "there is no database"
    )
    wait_until(
        lambda: workers_connected(gateway) >= gateway.workers, 30, "a worker is not connected"
    )


def open_streams(gateway: Gateway, streams: ExitStack, token: str) -> list[tuple[Face, Stream]]:
    """Streams of every worker, in the middle of their answers."""
    found: list[tuple[Face, Stream]] = []

    def all_are_busy() -> bool:
        for face in SSE_FACES.values():
            body = {**face.body, "stream": True}
            found.append(
                (
                    face,
                    streams.enter_context(
                        open_stream(gateway.url, "POST", face.path, body, bearer(token))
                    ),
                )
            )
            assert found[-1][1].status == 200
        return all(details["in_flight"] for details in worker_details(gateway, TOKEN).values())

    wait_until(all_are_busy, 10, "a worker gets no stream")
    return found


def assert_ended(streams: list[tuple[Face, Stream]]) -> None:
    """Each ends with the error of a withdrawn token, in time."""
    began = time.monotonic()
    for face, stream in streams:
        assert TokenRevoked.text in last_error(stream.read_all(), face)
    assert time.monotonic() - began < allowed(FOLLOWED_S)
