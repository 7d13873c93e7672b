"""What each request goes through before its route, step by step, and that its end is
recorded in any case."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from flask import Flask, request

from ollama_proxy.dialects import DIALECTS
from ollama_proxy.errors import AuthError, ForeignOrigin, GatewayError, NotFound, Overloaded
from ollama_proxy.gateway.exchange import EXCHANGE_KEY, Exchange
from ollama_proxy.gateway.gateway import Gateway
from ollama_proxy.policy import PUBLIC, READ
from ollama_proxy.server.admission import RequestAdmission
from ollama_proxy.server.client_watch import ClientWatch
from ollama_proxy.settings import Settings, settings_from, token_digest

TOKEN = "team-token-1"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}
WITHOUT_AUTH = "auth: {enabled: false}\nserver: {host: 127.0.0.1}\nservice: {base_url: 'demo:'}\n"
WITH_AUTH = """\
auth: {generate_tokens: [{name: web-team, sha256: %s}]}
server: {max_in_flight: 1}
service: {base_url: "demo:"}
"""


def settings(text: str, tmp_path: Any) -> Settings:
    return settings_from(text.encode(), tmp_path / "config.yaml", {})


class Door:
    """A gateway behind its admission, with one public route and one that needs a token."""

    def __init__(self, settings: Settings) -> None:
        self.ended: list[tuple[str, int]] = []
        self.gateway = Gateway(settings, finish_observers=[self._note_end])
        scopes = {"livez": PUBLIC, "tags": READ}
        self._admission = RequestAdmission(self.gateway, ClientWatch(), DIALECTS, scopes)
        self._app = Flask("door")
        for endpoint, path in (("livez", "/livez"), ("tags", "/api/tags")):
            self._app.add_url_rule(path, endpoint, lambda: "")

    def _note_end(self, exchange: Exchange) -> None:
        self.ended.append((exchange.path, self.gateway.in_flight))

    def arrive(
        self,
        path: str = "/api/tags",
        *,
        refused: type[GatewayError] | None = None,
        **request_options: Any,
    ) -> Exchange:
        """The exchange of a request that is admitted, or refused as expected."""
        with self._app.test_request_context(path, **request_options):
            with pytest.raises(refused) if refused else nullcontext():
                self._admission.admit_request()
            exchange: Exchange = request.environ[EXCHANGE_KEY]
            return exchange


@pytest.fixture
def door(tmp_path: Any) -> Iterator[Door]:
    door = Door(settings(WITH_AUTH % token_digest(TOKEN).hex(), tmp_path))
    yield door
    door.gateway.fleet.close()


def test_a_token_admits_a_request_until_it_is_over(door: Door) -> None:
    exchange = door.arrive(headers=WITH_TOKEN)
    assert (exchange.principal is not None, door.gateway.in_flight) == (True, 1)
    exchange.finish()
    assert (door.gateway.in_flight, door.ended) == (0, [("/api/tags", 0)])


def test_observers_see_what_every_release_has_done(door: Door) -> None:
    exchange = door.arrive(headers=WITH_TOKEN)
    exchange.on_finish(lambda: setattr(exchange, "path", "released"))
    exchange.finish()
    assert door.ended == [("released", 0)]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_without_a_valid_token_nothing_is_in_flight_and_the_end_is_observed(
    door: Door, headers: dict[str, str]
) -> None:
    exchange = door.arrive(headers=headers, refused=AuthError)
    assert (exchange.principal, door.gateway.in_flight) == (None, 0)
    exchange.finish()
    assert door.ended == [("/api/tags", 0)]


@pytest.mark.parametrize(("path", "method"), [("/livez", "GET"), ("/api/tags", "OPTIONS")])
def test_public_requests_need_no_token_and_are_not_in_flight(
    door: Door, path: str, method: str
) -> None:
    occupant = door.arrive(headers=WITH_TOKEN)
    exchange = door.arrive(path, method=method)
    assert (exchange.principal, door.gateway.in_flight) == (None, 1)
    exchange.finish()
    occupant.finish()
    assert [in_flight for _, in_flight in door.ended] == [1, 0]


def test_a_full_worker_refuses_the_next_request_with_a_token(door: Door) -> None:
    occupant = door.arrive(headers=WITH_TOKEN)
    one_too_many = door.arrive(headers=WITH_TOKEN, refused=Overloaded)
    one_too_many.finish()
    assert door.gateway.in_flight == 1
    occupant.finish()
    assert door.gateway.in_flight == 0


def test_a_request_id_that_contains_a_token_is_replaced(tmp_path: Any) -> None:
    # A digest alone does not tell how long the token is: a new one is
    # recognised only when it is used.
    token = secrets.token_hex(8)
    door = Door(settings(WITH_AUTH % token_digest(token).hex(), tmp_path))
    exchange = door.arrive(headers={"X-Api-Key": token, "X-Request-Id": f"id{token}id"})
    assert token not in exchange.id
    door.gateway.fleet.close()


def test_a_harmless_request_id_stays(door: Door) -> None:
    assert door.arrive(headers={**WITH_TOKEN, "X-Request-Id": "id-1"}).id == "id-1"


def test_a_token_in_an_unknown_path_is_not_kept(door: Door) -> None:
    assert door.arrive(f"/v1/{TOKEN}/models", headers=WITH_TOKEN).path == "/v1/***/models"


@pytest.mark.parametrize(("headers", "refused"), [({}, AuthError), (WITH_TOKEN, NotFound)])
def test_an_ambiguous_path_is_refused_after_authentication(
    door: Door, headers: dict[str, str], refused: type[GatewayError]
) -> None:
    door.arrive(environ_overrides={"RAW_URI": "/api/x/../tags"}, headers=headers, refused=refused)
    assert door.gateway.in_flight == 0


@pytest.mark.parametrize("path", ["/api/tags", "/livez", "/nowhere"])
def test_other_web_pages_are_refused_on_every_path_if_auth_is_off(tmp_path: Any, path: str) -> None:
    door = Door(settings(WITHOUT_AUTH, tmp_path))
    exchange = door.arrive(path, headers={"Origin": "https://evil.example"}, refused=ForeignOrigin)
    assert (exchange.principal, door.gateway.in_flight) == (None, 0)
    exchange.finish()
    assert door.ended == [(path, 0)]
    door.gateway.fleet.close()


@pytest.mark.parametrize(("users", "user"), [("", ""), (", users: {header: X-User}", "anna")])
def test_a_user_is_taken_from_a_header_only_behind_a_token_with_users(
    tmp_path: Any, users: str, user: str
) -> None:
    text = (
        f"auth: {{generate_tokens: [{{name: page, sha256: {token_digest(TOKEN).hex()}{users}}}]}}\n"
    )
    door = Door(settings(text, tmp_path))
    exchange = door.arrive(headers={**WITH_TOKEN, "X-User": "anna"})
    assert (exchange.user or "", exchange.trusted_user or "") == (user, user)
    exchange = door.arrive(headers=WITH_TOKEN)
    exchange.note_user("somebody")
    # The body is the client's: it is logged, and gives no share of its own.
    assert (exchange.user, exchange.trusted_user) == ("somebody", None)
    door.gateway.fleet.close()
