"""Keys of a running gateway, made and withdrawn as an operator does it: on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.rig.deadline import wait_until
from tests.rig.gateway import PROJECT, Gateway

#: The promise: seconds until every worker follows a change.
FOLLOWED_S = 2.0


def run_token_command(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``ollama-proxy token ...`` in the installation of a gateway."""
    return run_command(gateway, "token", *arguments)


def run_command(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``ollama-proxy ...`` in the installation of a gateway."""
    environ = {"OLLAMA_PROXY_CONFIG": str(gateway.config_path), "STATE_DIRECTORY": str(gateway.state_directory)}
    return subprocess.run(
        [sys.executable, "-m", "ollama_proxy.cli", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def change_key(gateway: Gateway, *arguments: str) -> str:
    """What a command prints. Raises AssertionError if it fails."""
    done = run_token_command(gateway, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def create_key(gateway: Gateway, name: str, *options: str) -> str:
    """The token of a new key."""
    made: dict[str, Any] = json.loads(change_key(gateway, "create", name, "--json", *options))
    return str(made["token"])


def wait_for_records(gateway: Gateway, seconds: float = 30) -> None:
    """Until the coordinator has made the tables."""
    wait_until(lambda: run_token_command(gateway, "list").returncode == 0, seconds, "there is no database")
