"""A process whose list of tokens is empty at its start, or at a hangup."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.app.test_no_tokens import LISTS, TOKEN, configuration
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, request


def test_no_token_is_made_at_the_start_and_the_reason_is_in_the_log(
    gateway_for: Callable[..., Gateway],
) -> None:
    gateway = gateway_for(configuration(LISTS["both"]), workers=1)
    assert request(gateway.url, path="/api/tags").status == 401
    assert not (gateway.state_directory / "first-token").exists()
    assert "op_" not in gateway.output()
    warnings = wait_until(lambda: gateway.events("configuration_warning"))
    assert any("every call is refused" in line["warning"] for line in warnings)


def test_hangup_with_an_empty_list_starts_workers_that_refuse_every_call(
    gateway_for: Callable[..., Gateway],
) -> None:
    gateway = gateway_for(configuration({"generate_tokens": [TOKEN]}), workers=1)
    first = gateway.worker_pids()
    gateway.write_config(configuration(LISTS["both"]))
    os.kill(gateway.pid, signal.SIGHUP)
    wait_until(lambda: len(now := gateway.worker_pids()) == gateway.workers and not now & first)
    assert request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).status == 401
