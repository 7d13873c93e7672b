"""Changes by a browser: they come from a page of this gateway, and have a token that only pages of
this session have, in the field `csrf_token` or in a header."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from flask import session
from flask_wtf.csrf import generate_csrf, validate_csrf
from wtforms.validators import ValidationError

from ollama_proxy.admin.pages.sessions import came_by_tls
from ollama_proxy.errors import Forbidden
from ollama_proxy.gateway import current_exchange
from ollama_proxy.texts import Translatable

#: The header of scripts.
CSRF_HEADER = "HTTP_X_CSRF_TOKEN"

_SECRET = "csrf_secret"

#: Sec-Fetch-Site of what the gateway's own pages send, and the user alone.
_OWN_SITES = ("same-origin", "none")


def make_csrf_token() -> str:
    """The token for a form of this session; "" if nobody has signed in, who has no session."""
    if current_exchange().principal is None:
        return ""
    token: str = generate_csrf(secret_key=session.setdefault(_SECRET, secrets.token_hex(16)))
    return token


def check_csrf(token: str) -> None:
    """Raises Forbidden unless the token is one of this session's."""
    try:
        validate_csrf(
            token, secret_key=session.get(_SECRET) or secrets.token_hex(16), time_limit=None
        )
    except ValidationError:
        raise Forbidden(
            Translatable("This form is outdated: load the page again."), detail="CSRF token"
        ) from None


def check_origin(environ: Mapping[str, Any]) -> None:
    """Raises Forbidden unless the browser says that a page of this gateway has sent the request.
    Every browser does so with a form, and with each call of a script that can change something."""
    host, origin = environ.get("HTTP_HOST", "").lower(), environ.get("HTTP_ORIGIN")
    site = environ.get("HTTP_SEC_FETCH_SITE")
    # A proxy that is not trusted may have taken the TLS off.
    schemes = ("https",) if came_by_tls(environ) else ("http", "https")
    is_own = (
        site == "same-origin"
        if origin is None
        else origin.lower() in [f"{each}://{host}" for each in schemes]
    )
    if not is_own or site not in (None, *_OWN_SITES):
        raise Forbidden(
            Translatable("This was not sent by a page of this gateway."),
            detail=f"origin {origin}, site {site}",
        )
