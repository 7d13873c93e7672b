"""Who a browser is: a session stands for a token, the password, or a name that a
trusted proxy has sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

from ollama_proxy.admin.pages.sessions import SignedIn, page_session
from ollama_proxy.errors import AuthError, Forbidden
from ollama_proxy.policy import (
    ADMINISTRATOR,
    NOBODYS_HASH,
    Authenticator,
    Principal,
    verify_password,
)
from ollama_proxy.settings import Admin
from ollama_proxy.texts import Translatable

#: Where the name is that a trusted proxy has sent, as `read_user_header` read it
#: when the request came.
NAMED_USER_KEY = "ollama_proxy.named_user"

#: One password at a time is checked in each worker: that takes 64 MiB and a thread, and
#: anybody may ask for it.
_CHECKING = BoundedSemaphore()


def find_caller(authenticator: Authenticator, named: str | None) -> Principal | None:
    """Whose session the request has; None: nobody has signed in, or the token has ended since.
    `named`: by the trusted proxy; a session that was opened for another name is over."""
    return find_signed_in(authenticator, page_session().signed_in, named)


def find_signed_in(
    authenticator: Authenticator, signed_in: SignedIn | None, named: str | None
) -> Principal | None:
    """The same for what a session has."""
    if authenticator.anyone is not None:
        return authenticator.anyone
    if signed_in is None:
        return None
    if signed_in.by == "header":
        return authenticator.find_named(signed_in.name) if named == signed_in.name else None
    return authenticator.find(bytes.fromhex(signed_in.digest))


def open_with_token(authenticator: Authenticator, token: str, client: str) -> Principal:
    """Opens a session with a token; raises AuthError, TooManyGuesses."""
    try:
        header = f"Bearer {token.strip()}".encode().decode("latin-1")
    except UnicodeError:
        raise AuthError from None
    principal = authenticator.authenticate({"HTTP_AUTHORIZATION": header}, client)
    page_session().sign_in(SignedIn("token", principal.name, principal.digest.hex()))
    return principal


def open_with_password(
    authenticator: Authenticator, admin: Admin, user: str, password: str, client: str
) -> Principal:
    """Opens a session of the user `admin`; raises AuthError, TooManyGuesses."""
    with _CHECKING:
        authenticator.check_password(
            user, password, lambda: is_password(admin, user, password), client
        )
    principal = authenticator.administrator
    if principal is None:
        raise AuthError
    page_session().sign_in(SignedIn("password", principal.name, principal.digest.hex()))
    return principal


def is_password(admin: Admin, user: str, password: str) -> bool:
    """Whether this is the password of the user `admin`. Takes as long for a
    user that does not exist."""
    # In a thread: it keeps a processor busy for 50 ms, in which other requests must go on.
    arguments = (admin.password_hash.secret if admin.password_hash else NOBODYS_HASH, password)
    is_right: bool = gevent.get_hub().threadpool.apply(verify_password, arguments)
    return is_right and user == ADMINISTRATOR and admin.password_hash is not None


def open_with_header(authenticator: Authenticator, named: str) -> Principal:
    """Opens a session for who has signed in at the trusted proxy; raises Forbidden if
    nobody here has that name."""
    principal = authenticator.find_named(named)
    if principal is None:
        text = Translatable(
            "There is no token for %(name)s here: ask the operator for one.", name=named[:100]
        )
        raise Forbidden(text, detail="no such user")
    page_session().sign_in(SignedIn("header", principal.name))
    return principal


def read_user_header(environ: Mapping[str, Any], admin: Admin, *, is_proxy: bool) -> str | None:
    """The name that a trusted proxy has sent; None: it has sent none, or whoever
    connects is not trusted."""
    if not admin.user_header or not is_proxy:
        return None
    return environ.get("HTTP_" + admin.user_header.upper().replace("-", "_"), "").strip() or None
