"""Checks which host a request names, and which web page sent it, before anything else happens.

Without authentication, only this check keeps web pages away from the models. A page at a name of
its own that resolves to this machine (DNS rebinding) sends a foreign Host; any other page sends
`Origin` or `Sec-Fetch-Site` with every request that could change something, whatever its content
type. Other programs send neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ollama_proxy.errors import BadRequest, ForeignHost, ForeignOrigin, GatewayError
from ollama_proxy.policy.addresses import as_address
from ollama_proxy.settings import Settings, is_loopback, is_open

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")

#: Sec-Fetch-Site of requests that no other page has caused. On one machine, `same-site` is a
#: page on another port.
_OWN_SITES = ("same-origin", "none")

_NOT_ALLOWED = (
    "Web pages of this origin may not call this gateway; its operator can add the "
    "origin to cors.origins."
)


class OriginPolicy:
    """The rules of one configuration."""

    def __init__(self, settings: Settings) -> None:
        self._has_auth = settings.auth.enabled
        self._foreign_host: Callable[..., GatewayError] = ForeignHost
        self._foreign_origin: Callable[..., GatewayError] = ForeignOrigin
        if self._has_auth:
            self._foreign_host = partial(BadRequest, "This gateway does not serve this host name.")
            self._foreign_origin = partial(ForeignOrigin, _NOT_ALLOWED)
        self._is_open = is_open(settings)
        self._hosts = frozenset(host.lower() for host in settings.server.allowed_hosts)
        #: Origins that may read responses; none without authentication.
        self.allowed = (
            [origin_pattern(origin) for origin in settings.cors.origins] if self._has_auth else []
        )

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raises BadRequest, ForeignHost or ForeignOrigin for a request that
        must not be answered."""
        host = environ.get("HTTP_HOST", "").lower()
        match = _HOST.fullmatch(host)
        if match is None:
            raise BadRequest("The Host header is missing or malformed.")
        if not self._is_served(host, match[1]):
            raise self._foreign_host(detail=f"host {host}")
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            if not any(pattern.match(origin) for pattern in self.allowed):
                raise self._foreign_origin(detail=f"origin {origin}")
        if (
            not self._has_auth
            and (site := environ.get("HTTP_SEC_FETCH_SITE", "none")) not in _OWN_SITES
        ):
            raise ForeignOrigin(detail=f"Sec-Fetch-Site {site}")

    def _is_served(self, host: str, name: str) -> bool:
        if name in self._hosts or host in self._hosts:
            return True
        if self._has_auth:
            return not self._hosts
        bare = name.strip("[]")
        # A foreign DNS server can redirect neither loopback names nor addresses.
        return (
            is_loopback(bare)
            or bare.endswith(".localhost")
            or (self._is_open and as_address(bare) is not None)
        )


def origin_pattern(origin: str) -> re.Pattern[str]:
    """Returns the pattern of a configured origin: a lone `*` matches all; elsewhere `*` is one or
    more labels of a host, or a port."""
    if origin == "*":
        return re.compile("")
    return re.compile(re.escape(origin).replace(r"\*", "[A-Za-z0-9.-]+") + r"\Z", re.IGNORECASE)
