"""What a process reports about itself while its configuration is broken and its upstream comes and
goes."""

from __future__ import annotations

from collections.abc import Callable

from tests.rig.calls import config
from tests.rig.deadline import wait_until
from tests.rig.edits import FOLLOWED_S, problems
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway


def test_a_broken_configuration_is_told_to_members_alone(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    gateway.write_config("auth: {generate_tokens: [canary-token")
    wait_until(lambda: all(problems(gateway)), FOLLOWED_S)
    assert all("config.yaml" in str(problem) for problem in problems(gateway))
    assert not any("canary" in str(problem) for problem in problems(gateway))
    answer = gateway.ask("/readyz", token=None)
    assert (answer.status, answer.json()) == (200, {"status": "ready"})
    gateway.write_config(config(fault_upstream.url))
    wait_until(lambda: not any(problems(gateway)), FOLLOWED_S)


def test_an_upstream_that_goes_and_comes_is_noticed(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url), workers=1)
    fault_upstream.refuse()
    wait_until(lambda: gateway.events("upstream_down"))
    fault_upstream.restart()
    wait_until(lambda: gateway.ask("/readyz", token=None).status == 200)
