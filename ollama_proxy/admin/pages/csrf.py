"""Changes need a token that only pages of this session have: in the field `csrf_token`, or in a header."""

from __future__ import annotations

import secrets

from flask import session
from flask_wtf.csrf import generate_csrf, validate_csrf
from wtforms.validators import ValidationError

from ollama_proxy.errors import Forbidden

#: The header of scripts.
CSRF_HEADER = "HTTP_X_CSRF_TOKEN"

_SECRET = "csrf_secret"


def make_csrf_token() -> str:
    """The token for a form of this session."""
    token: str = generate_csrf(secret_key=session.setdefault(_SECRET, secrets.token_hex(16)))
    return token


def check_csrf(token: str) -> None:
    """Raises Forbidden unless the token is one of this session's."""
    try:
        validate_csrf(token, secret_key=session.get(_SECRET) or secrets.token_hex(16), time_limit=None)
    except ValidationError:
        raise Forbidden("This form is outdated: load the page again.", detail="CSRF token") from None
