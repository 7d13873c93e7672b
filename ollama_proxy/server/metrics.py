"""`/metrics`, for Prometheus: who may read it, and the route."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from flask import Blueprint, Response, request

from ollama_proxy.admin import ADMIN_ROUTES, PAGE_ROUTES
from ollama_proxy.coordination import CoordinatorClient
from ollama_proxy.errors import AuthError, Forbidden, NotFound, TooManyGuesses
from ollama_proxy.gateway import Gateway, current_exchange, whole
from ollama_proxy.policy import METRICS, PUBLIC
from ollama_proxy.server.request import is_trusted, plain_address
from ollama_proxy.settings import Settings
from ollama_proxy.telemetry import RecordSink


class Metrics(Protocol):
    """See telemetry.metrics, which a gateway without metrics does not import."""

    @property
    def record(self) -> RecordSink:
        """Takes the record of each exchange that ends."""

    def start(self, lag_s: Callable[[], float]) -> None:
        """Begins to count."""

    def render(self, accept: str) -> tuple[bytes, str]:
        """Returns the metrics and their content type."""


#: See Routes: the view itself decides who may read.
SCOPES = {"metrics.metrics": PUBLIC}

#: Routes that are not counted: machines ask them all the time.
IGNORED_ROUTES = ("/", "/health", "/livez", "/readyz", "/metrics")

#: What proxies add to a request.
_FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


def build_metrics(
    directory: Path | None,
    settings: Settings,
    gateway: Callable[[], Gateway],
    coordinator: CoordinatorClient | None,
) -> Metrics | None:
    """The metrics of this worker; None if they are off, or have no directory."""
    if directory is None or not settings.metrics.enabled:
        return None
    # 2 MB, which a gateway without metrics does without.
    metrics: Metrics = importlib.import_module("ollama_proxy.telemetry.metrics").Metrics(
        directory,
        gateway,
        coordinator=coordinator,
        has_token_label=settings.metrics.token_label,
        ignored_routes=(*IGNORED_ROUTES, *ADMIN_ROUTES, *PAGE_ROUTES),
    )
    return metrics


def build_blueprint(gateway: Gateway, metrics: Metrics | None) -> Blueprint:
    """`metrics` None: the address does not exist."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics", endpoint="metrics")
    def metrics_view() -> Response:
        """GET /metrics: the metrics of all workers; 403 for everybody who may not read them."""
        if metrics is None or not gateway.settings.metrics.enabled:
            raise NotFound(
                "There are no metrics: see metrics.enabled, and metrics_unavailable in the log."
            )
        may_read = _is_allowed_address(gateway)
        if not may_read:
            with suppress(AuthError, TooManyGuesses):
                caller = gateway.snapshot.authenticator.authenticate(
                    request.environ, current_exchange().client
                )
                may_read = bool(caller.digest) and METRICS in caller.scopes
        if not may_read:
            raise Forbidden(
                "Metrics are for the addresses in metrics.allow, and for tokens "
                "with the scope metrics."
            )
        body, content_type = metrics.render(request.headers.get("Accept", ""))
        return whole(body, content_type=content_type)

    return blueprint


def _is_allowed_address(gateway: Gateway) -> bool:
    """Whether the client's address is enough. Behind a proxy that is not trusted, it is the address
    of the proxy, which proves nothing; and a web page has that of its reader."""
    server, environ = gateway.settings.server, request.environ
    proxy = plain_address(environ.get("REMOTE_ADDR") or "")
    is_known = is_trusted(proxy, server.trusted_proxies) or not any(
        name in environ for name in _FORWARDED
    )
    is_page = "HTTP_ORIGIN" in environ or environ.get("HTTP_SEC_FETCH_SITE", "none") not in (
        "none",
        "same-origin",
    )
    return (
        is_known
        and not is_page
        and is_trusted(current_exchange().client, gateway.settings.metrics.allow)
    )
