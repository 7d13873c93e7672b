"""What machines and people ask a gateway about itself: `/`, `/health`, `/health/probe`, `/livez`,
`/readyz`."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import cast

import gevent
import orjson
from flask import Blueprint, Response, redirect, request

from ollama_proxy.errors import AuthError, Forbidden, NotFound, TooManyGuesses
from ollama_proxy.gateway import Exchange, Gateway, current_exchange, whole
from ollama_proxy.hub import Json
from ollama_proxy.policy import MANAGE, PUBLIC, READ, Principal
from ollama_proxy.server.client_watch import ClientWatch
from ollama_proxy.server.config_warnings import NO_TOKENS
from ollama_proxy.server.probe import answer_probe
from ollama_proxy.server.request import check_admin_access
from ollama_proxy.server.status import status_document, upstream_details
from ollama_proxy.upstreams import Health, State

#: See Routes: only one of these addresses needs a token.
SCOPES = dict.fromkeys(("ops.root", "ops.health", "ops.livez", "ops.readyz"), PUBLIC) | {
    "ops.probe": READ
}


def build_blueprint(
    gateway: Gateway,
    health: Health,
    client_watch: ClientWatch,
    problem: Callable[[], str | None],
    started_at: float,
) -> Blueprint:
    """`problem` tells what is wrong with the configuration file; None: nothing. `started_at`: the
    monotonic time at which the process began."""
    status = partial(status_document, gateway, health, started_at=started_at)
    blueprint = Blueprint("ops", __name__)
    blueprint.add_url_rule("/", "root", partial(answer_root, gateway, status))
    blueprint.add_url_rule("/health/probe", "probe", partial(answer_probe, gateway))

    @blueprint.get("/health", endpoint="health")
    def health_view() -> Response:
        """GET /health: the status object, always 200; with a token also every upstream."""
        exchange = _exchange_with_caller(gateway)
        document = status(exchange, well="healthy")
        if exchange.principal and READ in exchange.principal.scopes:
            document |= upstream_details(gateway, exchange)
        return _json(document)

    @blueprint.get("/livez", endpoint="livez")
    def livez() -> Response:
        """GET /livez: this worker serves."""
        return _json({"status": "ok"})

    @blueprint.get("/readyz", endpoint="readyz")
    def readyz() -> Response:
        """GET /readyz: 200 when an upstream can be used, else 503, also while the worker ends;
        details for who may manage. A list of tokens without any is no reason to send clients
        elsewhere: they are to be refused."""
        states = health.states()
        unusable = (
            None if any(state.usable for state in states.values()) else "no upstream can be used"
        )
        reason = "draining" if gateway.lifecycle.is_leaving else unusable
        document: dict[str, Json] = {"status": "not ready" if reason else "ready"}
        if reason:
            document["reason"] = reason
        if gateway.settings.auth.refuses_all:
            document["warning"] = NO_TOKENS
        caller = _caller(gateway)
        if caller and MANAGE in caller.scopes:
            document["details"] = _details(gateway, client_watch, states, problem)
        return _json(document, status=503 if reason else 200)

    return blueprint


def answer_root(gateway: Gateway, status: Callable[..., dict[str, Json]]) -> Response:
    """GET /: text for clients of Ollama, the status object for those that ask for JSON; browsers
    that may use the admin pages are sent there."""
    # Clients of Ollama do not ask for HTML.
    if "text/html" in (kind for kind, _ in request.accept_mimetypes):
        with suppress(Forbidden, NotFound):
            check_admin_access(gateway.settings.admin, current_exchange().client)
            response = cast(Response, redirect("/admin"))
            response.headers["Vary"] = "Accept"
            return response
    # Ollama's clients look for this text before they do anything else.
    if (
        request.accept_mimetypes.best_match(["text/plain", "application/json"])
        != "application/json"
    ):
        return Response("Ollama is running", content_type="text/plain; charset=utf-8")
    return _json(status(_exchange_with_caller(gateway), well="ok"))


def _json(document: dict[str, Json], *, status: int = 200) -> Response:
    return whole(orjson.dumps(document), status=status)


def _exchange_with_caller(gateway: Gateway) -> Exchange:
    exchange = current_exchange()
    exchange.principal = _caller(gateway)
    return exchange


def _caller(gateway: Gateway) -> Principal | None:
    """Whose token the request has; None without a valid one, which these
    public routes do not need."""
    try:
        return gateway.snapshot.authenticator.authenticate(
            request.environ, current_exchange().client
        )
    except (AuthError, TooManyGuesses):
        return None


def _details(
    gateway: Gateway,
    client_watch: ClientWatch,
    states: Mapping[str, State],
    problem: Callable[[], str | None],
) -> dict[str, Json]:
    """One worker's inner numbers, for operators and tests."""
    return {
        "pid": os.getpid(),
        "in_flight": gateway.in_flight,
        "watched": client_watch.active,
        "greenlets": sum(
            issubclass(type(each), gevent.Greenlet) and not each.dead for each in gc.get_objects()
        ),
        "upstream_connections": gateway.fleet.counts(),
        "configuration_problem": problem(),
        "upstreams": {
            name: {
                "usable": state.usable,
                "version": state.version,
                "reason": state.reason,
                "in_flight": node.in_flight if (node := gateway.fleet.node(name)) else 0,
            }
            for name, state in states.items()
        },
    }
