"""What every request goes through before its route: its exchange is opened, and it is admitted or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flask import request

from ollama_proxy.admin import ADMIN_API
from ollama_proxy.dialects import Dialect, find_dialect
from ollama_proxy.gateway import EXCHANGE_KEY, Exchange, Gateway
from ollama_proxy.policy import PUBLIC, check_scope
from ollama_proxy.records import Spool
from ollama_proxy.server.client_watch import ClientWatch
from ollama_proxy.server.connection import CONNECTION_KEY
from ollama_proxy.server.request import (
    check_admin_access,
    check_path,
    new_exchange,
    redacted,
    request_id,
    user_name,
)


class RequestAdmission:
    """Opens the exchange of each request, authenticates and admits it, and watches its client. `scopes`: what each
    endpoint needs; `spool`: where it notes that an exchange begins, if usage is recorded."""

    def __init__(
        self,
        gateway: Gateway,
        client_watch: ClientWatch,
        dialects: Sequence[Dialect],
        scopes: Mapping[str, str],
        spool: Spool | None = None,
        *,
        is_accounted: bool = False,
    ) -> None:
        """`is_accounted`: what requests use is wanted even without a spool."""
        self._gateway = gateway
        self._client_watch = client_watch
        self._dialects = dialects
        self._scopes = scopes
        self._spool = spool
        self._is_accounted = is_accounted

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
        if incoming.url_rule is not None:
            exchange.route = incoming.url_rule.rule
        if not endpoint or incoming.view_args:
            exchange.path = redacted(exchange.path, snapshot.authenticator.is_token)
        snapshot.origins.check(environ)
        if exchange.method == "OPTIONS" or self._scopes.get(endpoint) == PUBLIC:
            return
        is_admin = exchange.dialect is ADMIN_API
        if is_admin:
            check_admin_access(snapshot.settings.admin, exchange.client)
        principal = exchange.principal = snapshot.authenticator.authenticate(environ, exchange.client)
        if principal.user_key:
            exchange.user = exchange.trusted_user = user_name(environ.get(principal.user_key, ""))
        if exchange.id == environ.get("HTTP_X_REQUEST_ID"):
            exchange.id = request_id(exchange.id)  # the token that it may contain is known only now
        check_path(environ)
        check_scope(principal, endpoint, self._scopes)
        if not is_admin:  # whose requests are not those of the gateway's users
            self._admit(exchange)
        connection = environ.get(CONNECTION_KEY)
        if connection is not None:
            exchange.on_finish(self._client_watch.add(connection, exchange.call))

    def _admit(self, exchange: Exchange) -> None:
        """Counts an exchange, and notes that it begins; raises Overloaded."""
        self._gateway.admit(exchange)
        exchange.is_accounted = self._is_accounted
        if self._spool is not None and self._gateway.settings.records.url is not None:
            exchange.row_id, exchange.is_accounted = self._spool.begin(exchange), True
