"""A gateway whose operator has emptied the list of tokens: nobody is admitted, and
everybody can see why."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error, dialect_of
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, request

TOKEN = "sk-last-of-the-team"
LISTS: dict[str, Mapping[str, Any]] = {
    "generate_tokens": {"generate_tokens": []},
    "manage_tokens": {"manage_tokens": []},
    "both": {"generate_tokens": [], "manage_tokens": []},
    "no value": {"generate_tokens": None},
    "both without a value": {"generate_tokens": None, "manage_tokens": None},
}
ROUTES = [
    ("GET", "/api/tags"),
    ("POST", "/api/chat"),
    ("GET", "/v1/models"),
    ("POST", "/v1/messages"),
]


def configuration(auth: Mapping[str, Any]) -> dict[str, Any]:
    return {"auth": dict(auth), "service": {"base_url": "demo:"}}


def warnings(gateway: Gateway) -> list[str]:
    return [line["warning"] for line in gateway.events("configuration_warning")]


@pytest.fixture(scope="module", params=LISTS)
def emptied(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with Gateway(configuration(LISTS[request.param]), workers=1) as gateway:
        yield gateway


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("token", ["", TOKEN, "op_" + "0" * 38])
def test_every_call_is_refused_from_the_start(
    emptied: Gateway, method: str, path: str, token: str
) -> None:
    answer = request(
        emptied.url, method, path, {} if method == "POST" else None, bearer(token) if token else {}
    )
    assert_error(answer, dialect_of(path), 401)


def test_no_token_is_made_at_the_start(emptied: Gateway) -> None:
    assert not (emptied.state_directory / "first-token").exists()
    assert "op_" not in emptied.output()


def test_the_state_is_in_the_log_and_in_readyz(emptied: Gateway) -> None:
    wait_until(lambda: any("every call is refused" in warning for warning in warnings(emptied)))
    answer = request(emptied.url, path="/readyz")
    assert (answer.status, answer.json()["status"]) == (200, "ready")
    assert "every call is refused" in answer.json()["warning"]


def test_with_a_token_readyz_has_no_warning(gateway_for: Callable[..., Gateway]) -> None:
    gateway = gateway_for(configuration({"generate_tokens": [TOKEN]}))
    assert request(gateway.url, path="/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("value", ["[]", "null"])
def test_environment_can_withdraw_every_token(value: str) -> None:
    environment = {"OLLAMA_PROXY__AUTH__GENERATE_TOKENS": value}
    with Gateway(
        configuration({"generate_tokens": [TOKEN]}), workers=1, env=environment
    ) as gateway:
        assert request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).status == 401


@pytest.mark.parametrize("auth", LISTS.values(), ids=LISTS)
def test_hangup_with_an_empty_list_starts_workers_that_refuse_every_call(
    gateway_for: Callable[..., Gateway], auth: Mapping[str, Any]
) -> None:
    gateway = gateway_for(configuration({"generate_tokens": [TOKEN]}))
    first = gateway.worker_pids()
    gateway.write_config(configuration(auth))
    os.kill(gateway.pid, signal.SIGHUP)
    wait_until(lambda: len(now := gateway.worker_pids()) == gateway.workers and not now & first)
    assert {
        request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).status for _ in range(8)
    } == {401}
