"""A real provider that somebody else has written: LiteLLM's proxy, installed by tests/run.sh,
as a process of its own.

It has its own reading of OpenAI's API (and of Anthropic's), its own streams and its own errors. Its
models are those of `upstream_url`, which speaks OpenAI's API too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

from tests.rig import http_client
from tests.rig.deadline import wait_until
from tests.rig.gateway import free_port

#: Where tests/run.sh puts it.
PROGRAM = Path(sys.prefix) / "second" / "bin" / "litellm"
KEY = "sk-second-implementation"
#: Its first start compiles all that it imports, on a machine that may be busy.
START_S = 120.0


def require_program() -> Path:
    """The proxy. Where it is missing the test is skipped with the reason; with CI=true it fails."""
    if PROGRAM.exists():
        return PROGRAM
    reason = f"{PROGRAM.name} is not installed: `make test` does that"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class SecondImplementation:
    """The proxy with `models` (its name of each to that of the upstream): ``with
    SecondImplementation(...) as second`` gives one that answers."""

    def __init__(self, models: Mapping[str, str], upstream_url: str, upstream_key: str) -> None:
        self.program = require_program()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        #: What an upstream of kind openai is configured with.
        self.base_url = f"{self.url}/v1"
        self._files = tempfile.TemporaryDirectory(prefix="second-")
        self._output = Path(self._files.name) / "output.txt"
        self._process: subprocess.Popen[bytes] | None = None
        common = {"api_base": upstream_url, "api_key": upstream_key, "max_retries": 0}
        listed = [
            {"model_name": name, "litellm_params": {"model": f"openai/{model}"} | common}
            for name, model in models.items()
        ]
        config = {
            "model_list": listed,
            "general_settings": {"master_key": KEY},
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        }
        self._config = Path(self._files.name) / "config.yaml"
        self._config.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        command = [
            self.program,
            "--config",
            self._config,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().endswith(("_KEY", "_PROXY"))
        }
        # No list of prices from the network, no `.env` from this directory, and no
        # page for administrators.
        quiet = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "DISABLE_ADMIN_UI": "True",
        }
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--telemetry", "False"],
                cwd=self._files.name,
                env=kept | quiet,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = self._process
        wait_until(
            lambda: process.poll() is not None or self._is_up(),
            START_S,
            lambda: f"no start:\n{self.output()}",
        )
        assert process.poll() is None, f"ended while starting:\n{self.output()}"

    def _is_up(self) -> bool:
        try:
            return http_client.request(self.url, path="/health/liveliness", timeout=2).status == 200
        except OSError:
            return False

    def output(self) -> str:
        """What it has written."""
        return (
            self._output.read_text(encoding="utf-8", errors="replace")
            if self._output.exists()
            else ""
        )

    def close(self) -> None:
        """End it at once, with its files; nothing happens when it was never started."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended
            self._process.wait()
            self._process = None
        self._files.cleanup()
