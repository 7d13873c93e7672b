"""The gateway as a process: its end, and log files that can't be written. More of it
in tests/reliability."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.rig.calls import TOKEN, config
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway, group_is_alive
from tests.rig.http_client import bearer, request
from tests.rig.leaks import worker_details

pytestmark = pytest.mark.slow

# --- Ending ---------------------------------------------------------------------------------------


def test_end_comes_at_once_when_nothing_is_in_progress(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url), workers=1)
    assert request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).status == 200
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 15


def test_last_lines_reach_the_log_when_it_ends(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url), workers=1)
    wanted = {f"last-{n}" for n in range(50)}
    for request_id in wanted:
        request(gateway.url, path="/livez", headers={"X-Request-Id": request_id})
    assert gateway.stop() == 0
    assert wanted <= {line["id"] for line in gateway.log_lines("access")}


def test_the_keys_of_a_terminal_end_it_without_a_traceback(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    """Ctrl-C reaches master and workers, and the workers once more through the master."""
    gateway = gateway_for(config(fault_upstream.url))
    workers = gateway.worker_pids()

    def press() -> bool:
        """Whether all processes are gone after one more signal to each worker."""
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
        return not group_is_alive(gateway.pid)

    os.killpg(gateway.pid, signal.SIGINT)
    wait_until(press, 10, "something goes on")
    assert "Traceback" not in gateway.output()


# --- Log files ------------------------------------------------------------------------------------


def test_log_directory_that_can_not_be_written_stops_no_request(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url), workers=1)
    worker_details(gateway, TOKEN)  # every worker has opened its files
    gateway.logs_directory.rename(gateway.directory / "gone")
    gateway.logs_directory.write_text("a file in place of the directory")
    for _ in range(20):
        assert request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).status == 200
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output()
