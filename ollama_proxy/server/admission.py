"""What every request goes through before its route: its exchange is opened, and it is admitted or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flask import request

from ollama_proxy.dialects import Dialect, find_dialect
from ollama_proxy.gateway import EXCHANGE_KEY, Gateway
from ollama_proxy.policy import PUBLIC, check_scope
from ollama_proxy.server.client_watch import ClientWatch
from ollama_proxy.server.connection import CONNECTION_KEY
from ollama_proxy.server.request import check_path, new_exchange, redacted, request_id, user_name


class RequestAdmission:
    """Opens the exchange of each request, authenticates and admits it, and watches its client. `scopes`: what each
    endpoint needs."""

    def __init__(
        self, gateway: Gateway, client_watch: ClientWatch, dialects: Sequence[Dialect], scopes: Mapping[str, str]
    ) -> None:
        self._gateway = gateway
        self._client_watch = client_watch
        self._dialects = dialects
        self._scopes = scopes

    def admit_request(self) -> None:
        """Flask's before_request. Raises AuthError, TooManyGuesses, Forbidden, BadRequest, NotFound, Overloaded."""
        incoming = request._get_current_object()  # type: ignore[attr-defined]  # each use of the proxy is a look-up
        environ, endpoint = incoming.environ, incoming.endpoint or ""
        gateway, snapshot = self._gateway, self._gateway.snapshot
        # From now on the exchange is ended and recorded whatever happens.
        exchange = environ[EXCHANGE_KEY] = new_exchange(
            environ, snapshot.settings, find_dialect(environ, self._dialects)
        )
        gateway.track(exchange)
        if not endpoint or incoming.view_args:
            exchange.path = redacted(exchange.path, snapshot.authenticator.is_token)
        snapshot.origins.check(environ)
        if exchange.method == "OPTIONS" or self._scopes.get(endpoint) == PUBLIC:
            return
        principal = exchange.principal = snapshot.authenticator.authenticate(environ, exchange.client)
        if principal.user_key:
            exchange.user = exchange.trusted_user = user_name(environ.get(principal.user_key, ""))
        if exchange.id == environ.get("HTTP_X_REQUEST_ID"):
            exchange.id = request_id(exchange.id)  # the token that it may contain is known only now
        check_path(environ)
        check_scope(principal, endpoint, self._scopes)
        gateway.admit(exchange)
        connection = environ.get(CONNECTION_KEY)
        if connection is not None:
            exchange.on_finish(self._client_watch.add(connection, exchange.call))
