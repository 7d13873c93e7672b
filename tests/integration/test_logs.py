"""What a process writes down: its lines on standard output, and no token in any place that others
can read."""

from __future__ import annotations

from pathlib import Path

from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer

TOKEN, OTHER = "canary-token-1a2b3c", "canary-other-9z8y7x"


def everything_written(gateway: Gateway) -> dict[str, str]:
    """All text that the gateway has left behind in files and said."""
    written = {"output": gateway.output()}
    for directory in (gateway.logs_directory, gateway.state_directory):
        for path in directory.rglob("*"):
            if path.is_file():
                written[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    return written


def command_lines(gateway: Gateway) -> dict[str, str]:
    """What all users of the machine can read of the gateway's processes."""
    pids = (gateway.pid, *gateway.worker_pids())
    return {
        f"cmdline of {pid}": Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
        for pid in pids
    }


def test_lines_are_on_stdout_and_a_configured_token_is_no_part_of_any_log(
    upstream: FaultUpstream,
) -> None:
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "service": {"base_url": upstream.url},
        "logging": {"level": "DEBUG"},
    }
    with Gateway(config, workers=1) as running:
        headers = bearer(TOKEN) | {"X-Request-Id": "on-stdout"}
        running.request("GET", "/api/tags", headers=headers)
        wait_until(lambda: '"id":"on-stdout"' in running.output(), 5)
        running.write_config({**config, "auth": {"generate_tokens": [TOKEN, TOKEN]}})
        wait_until(lambda: running.events("configuration_broken"), 10)
        running.write_config({**config, "auth": {"generate_tokens": [TOKEN, OTHER]}})
        wait_until(lambda: running.events("configuration_reloaded"), 10)
        for where, text in (everything_written(running) | command_lines(running)).items():
            if str(running.state_directory) not in where:
                assert TOKEN not in text and OTHER not in text, where
        kept = [path for path in running.state_directory.rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o077 for path in kept} <= {0}
