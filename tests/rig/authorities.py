"""Makes clients quickly. A process of tests makes hundreds of them, and each reads all authorities
of TLS, which takes 30 ms. Here they are read once."""

from __future__ import annotations

from functools import cache

import httpx._transports.default
import httpx2._transports.default


def read_authorities_once() -> None:
    """Share the context of TLS between clients of httpx, which those of the SDKs are."""
    for module in (httpx._transports.default, httpx2._transports.default):
        module.create_ssl_context = cache(module.create_ssl_context)  # type: ignore[attr-defined]
