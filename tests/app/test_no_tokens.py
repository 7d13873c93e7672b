"""A gateway whose operator has emptied the list of tokens: no client is admitted, and the reason
is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest

from tests.rig.errors import assert_error, dialect_of
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.tables import check_rows, each_row

TOKEN = "sk-last-of-the-team"
LISTS: dict[str, Mapping[str, Any]] = {
    "generate_tokens": {"generate_tokens": []},
    "manage_tokens": {"manage_tokens": []},
    "both": {"generate_tokens": [], "manage_tokens": []},
    "no value": {"generate_tokens": None},
    "both without a value": {"generate_tokens": None, "manage_tokens": None},
}
ROUTES = ("/api/tags", "/api/chat", "/v1/models", "/v1/messages")


def configuration(auth: Mapping[str, Any]) -> dict[str, Any]:
    return {"auth": dict(auth), "service": {"base_url": "demo:"}}


@pytest.fixture(scope="module", params=LISTS)
def emptied(request: pytest.FixtureRequest) -> Iterator[LocalGateway]:
    with LocalGateway(configuration(LISTS[request.param])) as gateway:
        yield gateway


def test_every_call_is_refused(emptied: LocalGateway) -> None:
    def check(path: str, token: str) -> None:
        method = "POST" if path in ("/api/chat", "/v1/messages") else "GET"
        body = {} if method == "POST" else None
        answer = emptied.request(method, path, body, bearer(token) if token else {})
        assert_error(answer, dialect_of(path), 401)

    check_rows(product(ROUTES, ("", TOKEN, "op_" + "0" * 38)), check)


def test_the_state_is_in_readyz(emptied: LocalGateway) -> None:
    answer = emptied.request(path="/readyz")
    assert (answer.status, answer.json()["status"]) == (200, "ready")
    assert "every call is refused" in answer.json()["warning"]


def test_with_a_token_readyz_has_no_warning() -> None:
    with LocalGateway(configuration({"generate_tokens": [TOKEN]})) as gateway:
        assert gateway.request(path="/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("value", ["[]", "null"])
def test_environment_can_withdraw_every_token(value: str) -> None:
    environ = {"OLLAMA_PROXY__AUTH__GENERATE_TOKENS": value}
    config = configuration({"generate_tokens": [TOKEN]})
    with LocalGateway(config, environ=environ) as gateway:
        assert gateway.ask("/api/tags").status == 401


@each_row("auth", LISTS.values())
def test_an_edit_can_withdraw_every_token(auth: Mapping[str, Any]) -> None:
    with LocalGateway(configuration({"generate_tokens": [TOKEN]})) as gateway:
        assert gateway.ask("/api/tags").status == 200
        gateway.apply(configuration(auth))
        assert gateway.ask("/api/tags").status == 401
