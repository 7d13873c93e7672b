"""When a gateway with records is ready to be measured."""

from __future__ import annotations

from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway


def wait_for_records(gateway: Gateway, operator: str) -> None:
    """Wait until the coordinator has made the tables."""
    wait_until(
        lambda: gateway.ask("/admin/api/audit", token=operator).status == 200,
        30,
        "there are no records",
    )
