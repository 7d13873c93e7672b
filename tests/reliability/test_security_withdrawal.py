"""The last token is taken off the list while the gateway runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from ollama_proxy.errors import TokenRevoked
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import PROBE_TOKEN, TOKEN, Rig, Row
from tests.rig.calls import FACES, last_error
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, Head, WaitForPeerClose
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, request

FACE = FACES["native chat"]
#: What is left in the file, or of it: nobody can know whether it was meant.
HALVES: dict[str, Callable[[Path], object]] = {
    "no list": lambda path: path.write_bytes(b"service: {base_url: 'http://127.0.0.1:9'}\n"),
    "deleted": lambda path: path.unlink(),
}
EMPTY_LISTS = {
    "generate": "auth: {generate_tokens: []}\n",
    "manage": "auth: {manage_tokens: []}\n",
    "last line deleted": "auth:\n  generate_tokens:\n",
    "last line deleted, manage": "auth:\n  manage_tokens:\n",
}
#: Lists after which the file is damaged as well.
HALVED = tuple(EMPTY_LISTS) if BOTH_DOORS else ("generate",)


rig = module_fixture(Rig)


def statuses(url: str, token: str) -> set[int]:
    """What enough requests get for every worker to be among those that answer."""
    return {request(url, path="/api/version", headers=bearer(token)).status for _ in range(10)}


def warnings(gateway: Gateway) -> list[str]:
    """What the log has of settings that work and should be checked."""
    return [line["warning"] for line in gateway.events("configuration_warning")]


def problems(gateway: Gateway) -> int:
    """How many workers have complained about the file so far."""
    return len(gateway.events("configuration_broken"))


def has_complaints(gateway: Gateway, number: int) -> bool:
    """Whether so many have been logged."""
    return problems(gateway) >= number


def edit(row: Row, auth: str) -> None:
    """Writes the configuration with these lists and no other."""
    rest = {name: value for name, value in row.rig.config.items() if name != "auth"}
    row.gateway.write_config(auth + yaml.safe_dump(rest))


# S39


@pytest.mark.parametrize("name", EMPTY_LISTS)
def test_s39_an_empty_list_withdraws_the_last_token(row: Row, name: str) -> None:
    """Every call is refused, open streams end, and it is reported; half a file then
    brings no token back."""
    row.allow_probe_errors("no token is left, not even its own")
    gateway, said = row.gateway, len(warnings(row.gateway))
    line = b'{"model":"m","message":{"role":"assistant","content":"x"},"done":false}\n'
    head = Head(200, {"Content-Type": "application/x-ndjson"})
    row.upstream.script(FACE.upstream_path, [head, Chunk(line), WaitForPeerClose(30)])
    with row.open(FACE.path, {**FACE.body, "stream": True}) as stream:
        assert stream.read_some()
        edit(row, EMPTY_LISTS[name])
        assert TokenRevoked.text in last_error(stream.read_all(), FACE)
    try:
        wait_until(
            lambda: len(warnings(gateway)) >= said + gateway.workers,
            10,
            "a worker has not followed",
        )
        assert statuses(row.url, TOKEN) | statuses(row.url, PROBE_TOKEN) == {401}
        assert "every call is refused" in warnings(gateway)[-1]
        ready = request(row.url, path="/readyz")
        assert (ready.status, "every call is refused" in ready.json()["warning"]) == (200, True)
        first_token = gateway.state_directory / "first-token"
        assert not first_token.exists()
        # However the list was emptied, there is the same to go back to.
        for damage in HALVES.values() if name in HALVED else ():
            complaints = problems(gateway) + gateway.workers
            damage(gateway.config_path)
            wait_until(partial(has_complaints, gateway, complaints), 10)
            assert statuses(row.url, TOKEN) == {401}
        assert not first_token.exists()
    finally:
        row.rig.restore_configuration()
