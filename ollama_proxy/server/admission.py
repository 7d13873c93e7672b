"""What every request goes through before its route: its exchange is opened, and it
is admitted or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode
from wsgiref.types import WSGIEnvironment

from flask import Request, redirect, request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin import (
    ADMIN_API,
    ADMIN_PAGES,
    CSRF_HEADER,
    NAMED_USER_KEY,
    PAGE_SCOPES,
    check_csrf,
    check_origin,
    find_caller,
    read_cookie,
    read_user_header,
)
from ollama_proxy.dialects import Dialect, find_dialect
from ollama_proxy.errors import AuthError
from ollama_proxy.gateway import EXCHANGE_KEY, Exchange, Gateway
from ollama_proxy.policy import PUBLIC, SESSION_CALL_KEY, Principal, check_scope, sent_tokens
from ollama_proxy.records import Spool
from ollama_proxy.server.client_watch import ClientWatch
from ollama_proxy.server.connection import CONNECTION_KEY
from ollama_proxy.server.request import (
    check_admin_access,
    check_path,
    is_trusted,
    new_exchange,
    plain_address,
    redacted,
    request_id,
    user_name,
)

#: Those that change nothing.
_SAFE_METHODS = ("GET", "HEAD")


class RequestAdmission:
    """Opens the exchange of each request, authenticates and admits it, and watches its
    client. `scopes`: what each endpoint needs; `spool`: where it notes that an exchange
    begins, if usage is recorded."""

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

    def admit_request(self) -> ResponseReturnValue | None:
        """Flask's before_request. Raises AuthError, TooManyGuesses, Forbidden,
        BadRequest, NotFound, Overloaded. Returns what sends the browser to the form for
        signing in, if a page needs that."""
        incoming = request._get_current_object()  # type: ignore[attr-defined]  # each use of the proxy is a look-up
        environ, endpoint = incoming.environ, incoming.endpoint or ""
        snapshot, exchange = self._gateway.snapshot, self._open_exchange(incoming)
        snapshot.origins.check(environ)
        is_page = exchange.dialect is ADMIN_PAGES
        is_admin = self._enter_admin(incoming, exchange)
        if exchange.method == "OPTIONS" or self._scopes.get(endpoint) == PUBLIC:
            return None
        if is_page and exchange.principal is None:
            # The form for signing in leads back to the page that was asked for.
            form = (
                f"?{urlencode({'next': incoming.full_path.rstrip('?')})}"
                if incoming.method == "GET"
                else ""
            )
            return redirect(f"/admin{form}") if endpoint else None
        principal = self._identify(environ, exchange)
        check_path(environ)
        check_scope(principal, endpoint, self._scopes)
        if not is_admin:  # whose requests are not those of the gateway's users
            self._admit(exchange)
        connection = environ.get(CONNECTION_KEY)
        if connection is not None:
            exchange.on_finish(self._client_watch.add(connection, exchange.call))
        return None

    def _open_exchange(self, incoming: Request) -> Exchange:
        """The exchange of a request: from now on it is ended and recorded whatever happens."""
        environ, snapshot = incoming.environ, self._gateway.snapshot
        exchange = environ[EXCHANGE_KEY] = new_exchange(
            environ,
            snapshot.settings,
            find_dialect(environ, self._dialects),
            self._gateway.configured_tokens,
            self._gateway.clock,
        )
        self._gateway.track(exchange)
        if incoming.url_rule is not None:
            exchange.route = incoming.url_rule.rule
        if not incoming.endpoint or incoming.view_args:
            exchange.path = redacted(exchange.path, snapshot.authenticator.is_token)
        return exchange

    def _enter_admin(self, incoming: Request, exchange: Exchange) -> bool:
        """Whether this is a page, or a call of the admin API. Pages, and what they
        call, are their session's."""
        environ = incoming.environ
        is_page = exchange.dialect is ADMIN_PAGES
        is_admin = is_page or exchange.dialect is ADMIN_API
        if is_admin:
            check_admin_access(self._gateway.settings.admin, exchange.client)
        if is_page or incoming.endpoint in PAGE_SCOPES:  # //admin leads there, too
            check_path(environ)
        if is_page or SESSION_CALL_KEY in environ:
            exchange.principal = self._find_caller(environ, exchange)
        return is_admin

    def _find_caller(self, environ: WSGIEnvironment, exchange: Exchange) -> Principal | None:
        """Whose session a request has; raises AuthError for a call of a page without one, and
        Forbidden for one of another site."""
        snapshot = self._gateway.snapshot
        server, admin = snapshot.settings.server, snapshot.settings.admin
        is_proxy = is_trusted(
            plain_address(environ.get("REMOTE_ADDR") or ""), server.trusted_proxies
        )
        environ[NAMED_USER_KEY] = named = read_user_header(environ, admin, is_proxy=is_proxy)
        principal = find_caller(snapshot.authenticator, named)
        if SESSION_CALL_KEY in environ:
            check_admin_access(admin, exchange.client)
            if principal is None:
                raise AuthError
            check_call(environ)
        return principal

    def _identify(self, environ: WSGIEnvironment, exchange: Exchange) -> Principal:
        """Whose request it is, and which user it names."""
        principal = exchange.principal
        if (
            exchange.dialect is ADMIN_API
            and not principal
            and not sent_tokens(environ)
            and read_cookie(environ)
        ):
            # The admin API takes a session instead of a token, and for changes
            # the header of its pages.
            principal = self._find_caller(environ, exchange)
            if principal is not None and exchange.method not in _SAFE_METHODS:
                check_call(environ)
        if principal is None:
            principal = self._gateway.snapshot.authenticator.authenticate(environ, exchange.client)
        exchange.principal = principal
        if principal.user_key:
            exchange.user = exchange.trusted_user = user_name(environ.get(principal.user_key, ""))
        if exchange.id == environ.get("HTTP_X_REQUEST_ID"):
            exchange.id = request_id(exchange.id, self._gateway.configured_tokens)
        return principal

    def _admit(self, exchange: Exchange) -> None:
        """Counts an exchange, and notes that it begins; raises Overloaded."""
        self._gateway.admit(exchange)
        exchange.is_accounted = self._is_accounted
        if self._spool is not None and self._gateway.settings.records.url is not None:
            exchange.row_id, exchange.is_accounted = self._spool.begin(exchange), True


def check_call(environ: WSGIEnvironment) -> None:
    """Raises Forbidden unless a script of a page has made this call, with the
    token of its session."""
    if environ["REQUEST_METHOD"] not in _SAFE_METHODS:
        check_origin(environ)
    check_csrf(environ.get(CSRF_HEADER, ""))
